"""``python -m gimp_fast COMMAND`` is the same as ``gimp-fast COMMAND``."""

from gimp_fast.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
