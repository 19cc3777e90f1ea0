"""accelerate launch train.py --config monet2photo.yaml [section.key=value …]"""

import sys

from cyclegan.commands import run
from cyclegan.commands.train import main

if __name__ == "__main__":
    sys.exit(run("train.py", main, sys.argv[1:]))
