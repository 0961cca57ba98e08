from __future__ import annotations

import roofline


def test_the_roofline_says_that_it_is_computed(capsys):
    roofline.main(["--frames", "10"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("computed, not measured")
    assert len(lines) == 2 + 2 + 4
    assert len({line.count("|") for line in lines[2:]}) == 1


def test_a_fused_readout_is_bound_by_less_than_a_dense_one():
    for frames in (1, 10, 100):
        sizes = (frames * 1620, 1620, 3, 512, 64, 20)
        for width in (2, 4):
            dense, fused = roofline.dense_cost(*sizes, width), roofline.fused_cost(*sizes, width)
            assert fused.flops < dense.flops
            for gpu in roofline.GPUS:
                assert fused.seconds(gpu, width, False) < dense.seconds(gpu, width, False)
