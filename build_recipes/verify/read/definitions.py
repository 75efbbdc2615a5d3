"""Classes and functions as their statements tell: bases, fields, methods and signatures."""

from __future__ import annotations

import ast
import re

from build_recipes.verify.read.lazy import keys_of
from build_recipes.verify.read.model import Class, Function, Parameter
from build_recipes.verify.read.outline import Outline
from build_recipes.verify.read.syntax import blocks_of, bound_names, is_word, name_of, text_of

_SELF = re.compile(r"self\.(\w+)\s*(?::[^=\n]+)?=(?!=)")


def read_class(node: ast.ClassDef, outline: Outline) -> Class:
    """What a class statement gives its class."""
    methods: dict[str, Function] = {}
    attributes: list[str] = []
    fields: dict[str, int] = {}

    def body(block: list[ast.stmt]) -> None:
        for item in block:
            if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)):
                decorators = [name_of(d) for d in item.decorator_list]
                if not any(d.endswith((".setter", ".deleter", "overload")) for d in decorators):
                    methods[item.name] = read_function(item)
            elif isinstance(item, ast.AnnAssign):
                for name in bound_names(item.target):
                    fields[name] = _field(item)
            elif isinstance(item, ast.Assign):
                for target in item.targets:
                    attributes.extend(bound_names(target))
                    if isinstance(target, ast.Name) and target.id == "__slots__":
                        attributes.extend(keys_of(item.value, outline.constants) or ())
            elif isinstance(item, ast.ClassDef):
                attributes.append(item.name)
            elif isinstance(item, (ast.Import, ast.ImportFrom)):
                attributes.extend((a.asname or a.name).partition(".")[0] for a in item.names)
            else:
                for inner in blocks_of(item):
                    body(inner)

    body(node.body)
    source = outline.class_text(node)
    own = {m[1] for m in _SELF.finditer(source) if not is_word(source[m.start() - 1])}
    made_by = [d for d in node.decorator_list if isinstance(d, ast.Call)]
    keyword_only = [k for d in made_by for k in d.keywords if k.arg == "kw_only"]
    return Class(
        line=node.lineno,
        bases=[name_of(base) for base in node.bases],
        keywords=[f"{k.arg}={ast.unparse(k.value)}" for k in (*node.keywords, *keyword_only)],
        decorators=[name_of(d) for d in node.decorator_list],
        methods=methods,
        attributes=attributes,
        fields=fields,
        instance=sorted(own),
    )


def read_function(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Function:
    """The signature of a function."""
    spec = node.args
    found: list[Parameter] = []
    plain = [*((a, "p") for a in spec.posonlyargs), *((a, "a") for a in spec.args)]
    first_default = len(plain) - len(spec.defaults)
    for index, (argument, kind) in enumerate(plain):
        found.append(Parameter(argument.arg, kind, index >= first_default))
    if spec.vararg:
        found.append(Parameter(spec.vararg.arg, "*", True))
    for argument, default in zip(spec.kwonlyargs, spec.kw_defaults, strict=True):
        found.append(Parameter(argument.arg, "k", default is not None))
    if spec.kwarg:
        found.append(Parameter(spec.kwarg.arg, "**", True))
    return Function(node.lineno, found, [name_of(d) for d in node.decorator_list])


def _field(item: ast.AnnAssign) -> int:
    written = text_of(item.annotation) or name_of(item.annotation)
    if written.rpartition(".")[2].startswith("ClassVar") or "ClassVar[" in written:
        return 2
    if item.value is None:
        return 0
    if isinstance(item.value, ast.Call) and name_of(item.value).rpartition(".")[2] in ("field", "Field"):
        given = {keyword.arg: keyword.value for keyword in item.value.keywords}
        init, only = given.get("init"), given.get("kw_only")
        if isinstance(init, ast.Constant) and init.value is False:
            return 3
        if isinstance(only, ast.Constant) and only.value is True:
            return 4
        if item.value.args and not (
            isinstance(item.value.args[0], ast.Constant) and item.value.args[0].value is ...
        ):
            return 1
        if "default_factory" in given:
            return 5
        return 1 if "default" in given else 0
    return 1
