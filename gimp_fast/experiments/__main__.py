"""``python -m gimp_fast.experiments``."""

from gimp_fast.experiments import main

if __name__ == "__main__":
    raise SystemExit(main())
