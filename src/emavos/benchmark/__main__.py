"""`python -m emavos.benchmark` is `python -m emavos.benchmark.stages`."""

from emavos.benchmark.stages import main

if __name__ == "__main__":
    main()
