"""What fuzzing begins with, and a few steps of it, without the package that measures coverage."""

from __future__ import annotations

import random

import pytest

import fuzz


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning", "ignore::emavos.io.InputWarning")
@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_a_reader_takes_a_file_or_refuses_it_by_name(tmp_path, name):
    target, generator = fuzz.TARGETS[name], random.Random(0)

    def flip(content):
        changed = bytearray(content)
        if changed:
            changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
        return bytes(changed)

    for seed in target.seeds(tmp_path):
        target.feed(tmp_path, seed)
        content = seed
        for _ in range(5):
            content = target.mutate(content, generator, flip)
            target.feed(tmp_path, content)
