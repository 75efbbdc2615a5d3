"""`python -m build_recipes`: the program `armory`, also where no script of that name is installed (`./inv`)."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # never the folder that one stands in

from build_recipes.door.program import main  # noqa: E402

if __name__ == "__main__":
    main()
