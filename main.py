"""Train a model: the same as ``fractalgen train``."""

import sys

from fractalgen.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
