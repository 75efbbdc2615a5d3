"""CMake files read the way CMake reads them, down to the trees the real vLLM would fetch."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from build_recipes.formats.archive import unpack_sdist
from build_recipes.kit.errors import BadData
from build_recipes.kit.paths import Places
from build_recipes.sources.cmake.condition import truth
from build_recipes.sources.cmake.scan import CMakeSyntaxError, parse
from build_recipes.sources.cmake.trees import Declaration, Read, Scan, reader
from build_recipes.sources.download import fetch_files
from build_recipes.sources.lockfile import load_lock


def words(text: str) -> list[list[str]]:
    return [[command.name, *command.words()] for command in parse(text)]


def test_every_kind_of_argument() -> None:
    text = """
    # a comment ) with a paren
    Set(A "quoted # no comment; \\"x\\" \\${Y}" b\\ c [=[bracket ]] ${Z} "q"]=] d) #[[ block
    comment ]] SET( B )
    if((A AND B) OR NOT C) # cond
    endif ( )
    """
    assert words(text) == [
        ["set", "A", 'quoted # no comment; "x" \\${Y}', "b c", 'bracket ]] ${Z} "q"', "d"],
        ["set", "B"],
        ["if", "(", "A", "AND", "B", ")", "OR", "NOT", "C"],
        ["endif"],
    ]
    assert [command.line for command in parse(text)] == [3, 4, 5, 6]


@pytest.mark.parametrize("text", ["set(A", "set A)", ")", 'set("a)', "a b()"])
def test_what_is_no_cmake_says_so(text: str) -> None:
    with pytest.raises(CMakeSyntaxError, match="line 1"):
        parse(text)


@pytest.mark.parametrize(
    ("condition", "verdict"),
    [
        ("ON", True),
        ("NOT OFF", True),
        ("KNOWN", True),
        ("EMPTY", False),
        ("NOBODY_SET_THIS", None),
        ('KNOWN STREQUAL "yes"', True),
        ('"${KNOWN}" STREQUAL "no"', False),
        ('NOBODY STREQUAL "no"', None),
        ("OFF AND NOBODY", False),
        ("ON OR NOBODY", True),
        ("ON AND NOBODY", None),
        ("NOT (ON AND OFF)", True),
        ("DEFINED ENV{X}", None),
        ("DEFINED KNOWN", True),
        ("EXISTS /x OR ON", True),
        ("A VERSION_LESS 3", None),
        ('NOT KNOWN STREQUAL "no" AND NOT KNOWN STREQUAL "other"', True),
    ],
)
def test_conditions_have_three_values(condition: str, verdict: bool | None) -> None:
    variables = {"KNOWN": "yes", "EMPTY": ""}
    (command,) = parse(f"if({condition})")

    def expand(text: str) -> str | None:
        return text.replace("${KNOWN}", "yes") if "NOBODY" not in text else None

    assert truth(command.arguments, variables, expand) is verdict


def scan(
    files: dict[str, str], trees: dict[str, dict[str, str]] | None = None
) -> tuple[Scan, list[Declaration]]:
    def open_tree(declared: Declaration) -> Read | None:
        return (trees or {}).get(declared.name, {}).get

    made = Scan(open_tree)
    return made, made.project(files.get)


def test_both_halves_of_a_declaration_make_one_tree() -> None:
    _, found = scan(
        {
            "CMakeLists.txt": """
            set(REV "v1.2")
            if(DEFINED ENV{X_SRC_DIR})
              set(X_SRC_DIR $ENV{X_SRC_DIR})
            endif()
            if(X_SRC_DIR)
              FetchContent_Declare(Thing SOURCE_DIR ${X_SRC_DIR} CONFIGURE_COMMAND "")
            else()
              FetchContent_Declare(thing GIT_REPOSITORY https://e.org/x.git
                # GIT_TAG commented out
                GIT_TAG ${REV} GIT_PROGRESS TRUE SOURCE_SUBDIR python/x)
            endif()
            FetchContent_MakeAvailable(thing)
            """
        }
    )
    assert found == [
        Declaration(
            "thing", "https://e.org/x.git", "v1.2", "CMakeLists.txt:9", "", "X_SRC_DIR", "python/x", None
        )
    ]


def test_a_branch_that_is_known_not_to_be_taken_is_not_read() -> None:
    made, found = scan(
        {
            "CMakeLists.txt": """
            set(VLLM_TARGET_DEVICE "cuda" CACHE STRING "")
            if(VLLM_TARGET_DEVICE STREQUAL "cpu")
              include(cmake/cpu.cmake)
              return()
            elseif(NOBODY_KNOWS)
              include(${CMAKE_CURRENT_LIST_DIR}/cmake/maybe.cmake)
            else()
              message(FATAL_ERROR "no")
            endif()
            if(CUDA_FOUND)
              set(GPU CUDA)
            else()
              set(GPU HIP)
            endif()
            if(GPU STREQUAL "HIP")
              include(cmake/cpu.cmake)
            endif()
            """,
            "cmake/cpu.cmake": "FetchContent_Declare(cpu GIT_REPOSITORY https://e.org/cpu GIT_TAG v1)",
            "cmake/maybe.cmake": "FetchContent_Declare(maybe GIT_REPOSITORY https://e.org/maybe GIT_TAG v1)",
        }
    )
    assert [entry.name for entry in found] == ["maybe"]
    assert made.files == ["CMakeLists.txt", "cmake/maybe.cmake"]


def test_what_two_branches_disagree_on_is_not_taken_for_known() -> None:
    made, found = scan(
        {
            "CMakeLists.txt": """
            if(NOBODY_KNOWS)
              set(REV a)
            else()
              set(REV b)
            endif()
            FetchContent_Declare(x GIT_REPOSITORY https://e.org/x GIT_TAG ${REV})
            """
        }
    )
    assert found == []
    assert made.unreadable == ["CMakeLists.txt:7: x"]


def test_trees_declared_inside_a_fetched_tree_count_unless_they_are_switched_off() -> None:
    made, found = scan(
        {
            "CMakeLists.txt": """
            set(TESTS OFF CACHE BOOL "")
            FetchContent_Declare(a GIT_REPOSITORY https://e.org/a GIT_TAG v1)
            FetchContent_MakeAvailable(a)
            """
        },
        {
            "a": {
                "CMakeLists.txt": """
                set(TESTS ON CACHE BOOL "does not replace what is in the cache")
                if(TESTS)
                  FetchContent_Declare(gtest GIT_REPOSITORY https://e.org/gtest GIT_TAG v1)
                endif()
                add_subdirectory(lib)
                """,
                "lib/CMakeLists.txt": """
                macro(get name)
                  FetchContent_Declare(${name} GIT_REPOSITORY https://e.org/${name} GIT_TAG v2)
                endmacro()
                get(b)
                target_include_directories(x PRIVATE third/b/include)
                """,
            }
        },
    )
    assert [(entry.name, entry.parent, entry.repository) for entry in found] == [
        ("a", "", "https://e.org/a"),
        ("b", "a", "https://e.org/b"),
    ]
    assert made.names("a", "third/b")
    assert not made.names("a", "third/c")


def test_files_that_include_each_other_end_and_broken_ones_are_named() -> None:
    scan({"CMakeLists.txt": "include(a.cmake)", "a.cmake": "include(CMakeLists.txt)"})
    with pytest.raises(BadData, match="without end"):
        scan({"CMakeLists.txt": "function(f)\nf()\nf()\nendfunction()\nf()"})
    with pytest.raises(BadData, match="without end"):
        scan({"CMakeLists.txt": "include(CMakeLists.txt)\n" * 3})
    with pytest.raises(BadData, match=r"a\.cmake cannot be read: line 2"):
        scan({"CMakeLists.txt": "include(a.cmake)", "a.cmake": "\nset(A"})


PIECES = [
    "if(A)", "if(NOT (A OR B) AND C STREQUAL D)", "elseif(B)", "else()", "endif()", "foreach(x a b)", "endforeach()",
    "set(A 1)", "set(A)", "set()", "set(A ${B} CACHE STRING x)", "unset(A)", "unset()", "include()", "include(x)",
    "function(f x)", "endfunction()", "macro(f)", "endmacro()", "f(1 2)", "F()", "return()", "option(A)", "option()",
    "FetchContent_Declare()", "FetchContent_Declare(x GIT_REPOSITORY ${A} GIT_TAG)", "message(FATAL_ERROR no)",
    "FetchContent_Declare(y GIT_TAG v1 GIT_REPOSITORY u)", "FetchContent_MakeAvailable(x y ${A})",
    "add_subdirectory(none)",
    "FetchContent_Populate(x SOURCE_DIR ${X_DIR})", "set(y_SOURCE_DIR ${Y_DIR})", "block()", "endblock()", "if()",
    "string(REPLACE a b A ${A})", "while(A)", "endwhile()", "set(A [[x]])", "set(${A} ${${B}})", "# x\n",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=25))
def test_no_order_of_commands_breaks_the_reader(pieces: list[str]) -> None:
    try:
        _, found = scan({"CMakeLists.txt": "\n".join(pieces)})
    except BadData as error:
        assert "without end" in str(error)
        return
    assert {declared.name for declared in found} <= {"x", "y"}
    assert all(declared.repository and declared.revision for declared in found)


@given(st.text(alphabet='ab(){}[]=#"\\$; \n', max_size=60))
def test_any_text_is_commands_or_an_error(text: str) -> None:
    try:
        commands = parse(text)
    except CMakeSyntaxError:
        return
    assert all(command.name for command in commands)


@pytest.mark.network
@pytest.mark.parametrize("tag", ["v0.12.0", "v0.22.0"])
def test_the_lock_says_what_the_real_cmake_files_say(tag: str, tmp_path: Path) -> None:
    lock = load_lock(tag)
    assert lock.vllm.sdist is not None
    archive = fetch_files([lock.vllm.sdist], Places.from_environment().downloads)[lock.vllm.sdist.filename]
    made = Scan()
    declared = made.project(reader(unpack_sdist(archive, tmp_path / "vllm")))
    assert made.unreadable == []
    assert [(d.name, d.repository, d.revision, d.variable, d.subdir) for d in declared] == [
        (t.name, t.repository, t.revision, t.variable, t.subdir) for t in lock.trees
    ]
    assert all(tree.variable.endswith("_SRC_DIR") for tree in lock.trees)
    if tag == "v0.12.0":
        assert {t.name: t.variable for t in lock.trees} == {
            "cutlass": "VLLM_CUTLASS_SRC_DIR",
            "triton_kernels": "TRITON_KERNELS_SRC_DIR",
            "flashmla": "FLASH_MLA_SRC_DIR",
            "qutlass": "QUTLASS_SRC_DIR",
            "vllm-flash-attn": "VLLM_FLASH_ATTN_SRC_DIR",
        }


def test_a_condition_without_its_second_operand_is_unknown_not_a_crash() -> None:
    _, found = scan(
        {
            "CMakeLists.txt": """
            if(A STREQUAL)
              FetchContent_Declare(thing GIT_REPOSITORY https://e.org/x.git GIT_TAG v1)
            endif()
            FetchContent_MakeAvailable(thing)
            """
        }
    )
    assert [entry.name for entry in found] == ["thing"]
