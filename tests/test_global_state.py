"""What belongs to the whole process stays as its owner set it, whatever is imported or computed."""

from __future__ import annotations

import subprocess
import sys

# `changed()` names what differs from when it was called last.
WATCH = """
import gc, locale, logging, multiprocessing, os, random, signal, sys, threading, warnings
import huggingface_hub, numpy, PIL.Image, PIL.ImageFile, safetensors.torch, torch, torchvision

def state():
    loggers = [logging.root, *map(logging.getLogger, sorted(logging.root.manager.loggerDict))]
    return {
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")),
        "dtype": (torch.get_default_dtype(), torch.get_default_device()),
        "deterministic": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark, torch.backends.cudnn.enabled),
        "precision": (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32,
            torch.backends.cuda.matmul.allow_tf32, torch.backends.mkldnn.enabled,
            str(torch.tensor(1e-42) * 1)),
        "random numbers": (torch.get_rng_state().tolist(), random.getstate(),
            [part.tolist() if hasattr(part, "tolist") else part for part in numpy.random.get_state()]),
        "warnings": ([str(f) for f in warnings.filters], warnings.showwarning, warnings.formatwarning),
        "signals": {s: signal.getsignal(s) for s in signal.valid_signals()},
        "logging": [(one.name, one.level, one.disabled, list(one.handlers), list(one.filters))
            for one in loggers if one.level or one.disabled or one.handlers or one.filters],
        "hooks": (sys.excepthook, threading.excepthook, sys.unraisablehook, sys.displayhook, sys.gettrace(),
            list(gc.callbacks), gc.isenabled(), gc.get_threshold(), sys.getrecursionlimit()),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "process": (os.getcwd(), dict(os.environ), list(sys.path), locale.setlocale(locale.LC_ALL),
            multiprocessing.get_start_method(allow_none=True), torch.multiprocessing.get_sharing_strategy(),
            threading.active_count()),
        "NumPy": (numpy.geterr(), numpy.get_printoptions()),
        "Pillow": (PIL.Image.MAX_IMAGE_PIXELS, PIL.ImageFile.LOAD_TRUNCATED_IMAGES, sorted(PIL.Image.OPEN)),
    }

PIL.Image.init()
now = state()

def changed():
    global now
    before, now = now, state()
    return [name for name in now if now[name] != before[name]]
"""

IMPORTS = """
import importlib, pkgutil
import emavos
left_out = {"emavos.__main__", "emavos.memory.triton_kernels"}  # a command; an extra
modules = {module.name for module in pkgutil.walk_packages(emavos.__path__, "emavos.")} - left_out
modules = {name for name in modules if not name.startswith("emavos.ui.server.")}  # another extra
for name in sorted(modules):
    importlib.import_module(name)
    if what := changed():
        print(name, "changes", *what, sep=", ")
print(len(modules) > 100)
"""

USE = """
import tempfile
import emavos, emavos.confidence, emavos.io, emavos.session
from emavos.demo import synthetic_clip

def check(when):
    if what := changed():
        print(when, "changes", *what, sep=", ")

check("import")
frames, masks = synthetic_clip(frames=4, size=(48, 64))
check("drawing a clip")
folder = tempfile.mkdtemp()
for index, frame in enumerate(frames):
    emavos.io.write_image(f"{folder}/{index}.png", PIL.Image.fromarray(frame))
emavos.io.write_mask(folder + ".png", masks[0])
check("writing files")
for dtype in (torch.float32, torch.bfloat16):
    predictor = emavos.Predictor.from_pretrained(device="cpu", size=None, dtype=dtype)
    check("loading")
    for direction in ("forward", "both"):
        results = predictor.propagate(folder, folder + ".png", direction=direction)
        for result in results:
            result.mask, result.objects
        check(direction)
    results = predictor.propagate(frames, masks[0])
    next(results)
    check("the first frame")  # while the video still runs
    results.close()
    check("leaving a video")
session = predictor.session()
session.step(frames[0], masks[0])
session.step(frames[1])
session.correct({1: masks[1] == 1})
session.undo()
session.save(folder + "/saved")
session = predictor.session(folder + "/saved")
session.step(frames[2])
check("a session")
for wrong in (lambda: session.step(frames[3][1:]), lambda: session.correct({9: masks[3] == 1})):
    try:
        wrong()
    except ValueError:
        check("an error")
    else:
        print("no error")
print("done")
"""


def run(code):
    command = [sys.executable, "-c", WATCH + code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_no_module_changes_it_when_it_is_imported():
    assert run(IMPORTS) == "True\n"


def test_it_is_the_same_after_each_use_of_a_predictor_failed_ones_too():
    assert run(USE) == "done\n"


def test_a_change_would_be_seen():
    code = "torch.set_grad_enabled(False); torch.rand(1); print(changed(), changed())"
    assert run(code) == "['gradients', 'random numbers'] []\n"
