"""vllm-armory: build vLLM wheels from source for NVIDIA Arm machines, and prove what was built.

A request walks one way: tag x device -> Plan -> lock -> fetch -> patch -> provision -> compile ->
package -> audit -> publish. See docs/how-a-build-flows.md.
"""

import os

# GitPython refuses to be imported where git is not installed; a build checks for git itself, and may install it.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
