"""Make the files of this folder from the full reference outputs: `python tests/golden/make.py PARITY_DIR`.

Dense float outputs keep one pixel in `STRIDE` each way; inputs and labels stay whole. Only outputs on
procedural frames are taken: nothing here comes from a data set.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np

STRIDE = 4
HERE = Path(__file__).parent
THINNED = {"prob", "logits", "aggregate_keep_bg"}
LEFT_OUT = {"ea_c256"}  # the same block as ea_c32, in 700 kB


def main(parity: Path) -> None:
    for path in sorted(parity.glob("*.npz")):
        if path.stem in LEFT_OUT:
            continue
        with np.load(path) as file:
            arrays = {key: file[key] for key in file.files}
        if path.stem == "aggregate":
            thinned = arrays
        else:
            thinned = {k: v[..., ::STRIDE, ::STRIDE] if k in THINNED else v for k, v in arrays.items()}
            thinned["stride"] = np.array(STRIDE)
        np.savez_compressed(HERE / path.name, **thinned)
    for name in ("stcn_keys.json", "pad_divide_by.json", "weights_spotcheck.json"):
        shutil.copyfile(parity / name, HERE / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
