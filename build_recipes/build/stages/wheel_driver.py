"""Run vLLM's own setup.py on finished objects. Executed by the build environment's Python, not imported.

setup.py is left as it is: this wraps `setuptools.setup`, so that only the modules that were built are packaged,
and CMake, which has configured the tree already, is not configured again. `cmake --build` then finds nothing to
do and `cmake --install` puts the modules into place.

usage: wheel_driver.py BUILD_FOLDER MODULE[,MODULE...] setup.py-arguments...
"""

import pathlib
import runpy
import sys

import setuptools


def main() -> None:
    folder, names, *arguments = sys.argv[1:]
    keep = set(filter(None, names.split(",")))
    original = setuptools.setup

    def setup(**keywords):  # type: ignore[no-untyped-def]
        modules = keywords.get("ext_modules", [])
        keywords["ext_modules"] = [module for module in modules if module.name in keep]
        missing = keep - {module.name for module in modules}
        if missing:
            sys.exit(f"setup.py has no extension called {', '.join(sorted(missing))}")
        # cargo would build for this machine and from crates that nothing pins: see build.whole
        keywords.pop("rust_extensions", None)
        build_ext = keywords["cmdclass"]["build_ext"]
        build_ext.configure = lambda self, extension: None
        run = build_ext.run

        def prepared(self):  # type: ignore[no-untyped-def]
            # setup.py copies this folder back whether or not a module put something there
            (pathlib.Path(self.build_lib) / "vllm/third_party/triton_kernels").mkdir(
                parents=True, exist_ok=True
            )
            run(self)

        build_ext.run = prepared

        def finalize(self, _original=build_ext.finalize_options):  # type: ignore[no-untyped-def]
            _original(self)
            self.build_temp = folder

        build_ext.finalize_options = finalize
        return original(**keywords)

    setuptools.setup = setup
    sys.argv = ["setup.py", *arguments]
    sys.path.insert(0, "")
    runpy.run_path("setup.py", run_name="__main__")


if __name__ == "__main__":
    main()
