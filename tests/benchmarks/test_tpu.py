import json
import math
import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import tpu, tpu_hlo
from benchmarks.config import TpuOptions
from records.errors import RemaskError
from trainer.config import ModelConfig

COMPILER = Path(".venv-tpu/bin/python")
FOUND = {
    "chip": "TPU v5 lite",
    "replicas": 1,
    "seconds": 41.6,
    "arguments": 2e9,
    "outputs": 2e9,
    "aliased": 1.9e9,
    "temporary": 3e9,
    "code": 1e8,
}


def test_what_is_said_of_a_program():
    config = ModelConfig(7, hidden_size=2, num_hidden_layers=3, num_attention_heads=1, intermediate_size=5)
    cycles = Counter({"adamw/Mul": 1_500_000, "encoder_layer/MatMul": 4_500_000})
    chip = tpu.Chip(flops=1e6, memory=4e9, hertz=1.5e9, network=1e9)
    lines = list(tpu.described(FOUND, cycles, [], config, TpuOptions(batch=10, length=4), chip))
    assert lines[0] == "compiles  for v5e:1x1 (1 x TPU v5 lite), in 42 s: a global batch of 10"
    assert lines[1] == "memory    5.20 GB of the chip's 4 GB: DOES NOT FIT"
    assert lines[2].startswith("donated   95% of")
    assert [line.split() for line in lines[4:6]] == [
        ["75.0%", "3.00", "ms", "attention"],
        ["25.0%", "1.00", "ms", "optimizer", "and", "gradient", "norm"],
    ]
    # 10 sequences of 3,852 FLOP in 4 ms are 9.63 MFLOP/s: the arithmetic is that of the formula, whatever the chip.
    assert lines[6] == (
        "estimate  6.0 million cycles, 4.0 ms a step, MFU 963.0%, by the compiler's own cycles; not measured"
    )
    assert lines[7] == "input     must deliver 2,500 sequences a second to each chip"


def test_what_is_said_of_a_program_for_several_chips():
    config = ModelConfig(7, hidden_size=2, num_hidden_layers=3, num_attention_heads=1, intermediate_size=5)
    chip = tpu.Chip(flops=1e6, memory=4e9, hertz=1.5e9, network=1e9)
    options = TpuOptions(batch=10, length=4, topology="v5e:2x2")
    found = {**FOUND, "replicas": 4}
    lines = list(tpu.described(found, Counter({"adamw/Mul": 6_000_000}), [3_000_000, 1_000_000], config, options, chip))
    assert lines[0] == "compiles  for v5e:2x2 (4 x TPU v5 lite), in 42 s: a global batch of 40"
    assert lines[-4:] == [
        "sums      4.0 MB over 4 replicas, all-reduce in 2 parts",
        "  at least 6.00 ms at a chip's 1 GB/s; the compiler has no estimate",
        "estimate  6.0 million cycles, 10.0 ms a step, MFU 385.2%, by the compiler's own cycles; not measured",
        "input     must deliver 1,000 sequences a second to each chip",
    ]


def test_operations_are_counted_in_the_entry_computation_alone():
    inner = '%a = f32[] add(), metadata={op_name="x"}, backend_config={"estimated_cycles":"5"}'
    outer = '%b.3 = f32[] copy(), backend_config={"estimated_cycles":"7"}'
    assert tpu.cycles_by_name(f"%f {{\n{inner}\n}}\n\nENTRY %main {{\n{inner}\n{outer}\n}}") == {"x": 5, "%b.": 7}


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("adamw/ResourceApplyAdam", "optimizer and gradient norm"),
        ("bert_masked_lm/encoder_layer/GreaterEqual", "random bits of dropout"),
        ("gradient_tape/bert_masked_lm/encoder_layer/output_dense/Tensordot/MatMul/MatMul", "dense layers"),
        ("bert_masked_lm/encoder_layer/Tensordot/MatMul", "dense layers"),
        ("bert_masked_lm/encoder_layer/Softmax", "attention"),
        ("bert_masked_lm/word_embeddings/GatherV", "embeddings"),
        ("bert_masked_lm/Tensordot/MatMul", "vocabulary and loss"),
        ("bert_masked_lm/encoder_layer/Rsqrt", "elementwise"),
    ],
)
def test_groups(name, group):
    assert tpu.shares(Counter({name: 3})) == {group: 1.0}


def test_a_chip_that_nobody_knows_is_explained():
    with pytest.raises(RemaskError, match=r"^topology: found v99:1x1, expected one of v4, v5e, v5p, v6e and its size"):
        tpu.main(TpuOptions(topology="v99:1x1"))


def test_a_model_that_is_not_there_is_explained(tmp_path):
    with pytest.raises(RemaskError, match="give a folder that has one, or one of tiny, small, base"):
        tpu.model_config(str(tmp_path))


def test_the_shape_of_a_folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 100, "hidden_size": 24}))
    assert tpu.model_config(str(tmp_path)) == ModelConfig(100, hidden_size=24)


def test_no_compiler_is_explained():
    with pytest.raises(RemaskError, match=r"no \.nowhere/python; run this by way of 'make tpu-check'"):
        tpu.main(TpuOptions(compiler=".nowhere/python"))


def test_a_step_that_does_not_compile_is_explained(tmp_path):
    python = tmp_path / "python"
    (tmp_path / "said").write_text(json.dumps({"error": "UNIMPLEMENTED: no such op\nmore"}))
    python.write_text(f"#!/bin/sh\ncat {tmp_path}/said\n")
    python.chmod(0o755)
    with pytest.raises(RemaskError, match=r"^v5e:1x1: the step does not compile: UNIMPLEMENTED: no such op$"):
        tpu.main(TpuOptions(model="tiny", batch=2, length=8, compiler=str(python)))


@pytest.mark.slow
@pytest.mark.skipif(not COMPILER.exists(), reason="no .venv-tpu: 'make tpu-check' or 'make test-slow' sets it up")
def test_a_tiny_model_compiles_for_a_tpu(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(tpu, "RESULTS", str(tmp_path))
    tpu.main(TpuOptions(model="tiny", batch=8, length=32))
    said = capsys.readouterr().out
    assert "compiles  for v5e:1x1 (1 x TPU v5 lite)" in said
    assert "sums " not in said
    assert "donated   100% of" in said
    assert ": fits" in said
    found = re.search(r"^headline tpu_step_mfu_estimate (\S+)$", said, re.MULTILINE)
    assert found
    assert 0 < float(found[1]) < 1
    assert json.loads((tmp_path / "tpu.json").read_text())["headlines"].keys() == {"tpu_step_mfu_estimate"}


@pytest.mark.slow
@pytest.mark.skipif(not COMPILER.exists(), reason="no .venv-tpu: 'make tpu-check' or 'make test-slow' sets it up")
def test_a_tiny_model_compiles_for_four_chips_which_sum_every_gradient(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(tpu, "RESULTS", str(tmp_path))
    tpu.main(TpuOptions(model="tiny", batch=8, length=32, topology="v5e:2x2"))
    said = capsys.readouterr().out
    assert "compiles  for v5e:2x2 (4 x TPU v5 lite)" in said
    megabytes = 4 * (tpu.model_config("tiny").parameters + 3) / 1e6  # and loss, weights and tokens
    assert f"sums      {megabytes:,.1f} MB over 4 replicas, all-reduce in " in said
    assert json.loads((tmp_path / "tpu_chips.json").read_text())["headlines"].keys() == {"tpu_chips_step_mfu_estimate"}


def test_the_program_sums_every_gradient_over_all_replicas_whatever_their_number(tmp_path):
    from tensorflow.compiler.xla.service import hlo_pb2

    config, path = ModelConfig(31, 16, 1, 2, 32, 24), tmp_path / "step.pb"
    tpu_hlo.main(config=asdict(config), batch=2, length=24, path=str(path))
    module = hlo_pb2.HloModuleProto.FromString(path.read_bytes())
    sums = [each for part in module.computations for each in part.instructions if each.opcode == "all-reduce"]
    assert sum(math.prod(each.shape.dimensions) for each in sums) == config.parameters + 3
    assert not any(each.replica_groups for each in sums)
