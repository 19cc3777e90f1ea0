"""python test.py --run results/<run>: translate and score a test split, write its gallery"""

import sys

from cyclegan.commands import run
from cyclegan.commands.test import main

if __name__ == "__main__":
    sys.exit(run("test.py", main, sys.argv[1:]))
