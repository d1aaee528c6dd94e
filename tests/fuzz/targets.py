"""Every reader of bytes that come from outside, with valid inputs for it and with what it may do to others.

A reader may refuse an input with the exceptions named, or take it; then what it promises must hold. Anything
else, a crash, a hang or an allocation of more than 64 MiB, is a finding.
"""

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feste_dp.checkpoint.format import decode_manifest
from feste_dp.checkpoint.loading import load_checkpoint, verify_checkpoint
from feste_dp.checkpoint.saving import write_checkpoint
from feste_dp.checkpoint.shards import check_shard_header, encode_shard_header
from feste_dp.config.dumping import dump_config
from feste_dp.config.loading import config_from_text, load_config
from feste_dp.config.schema import Config, ModelConfig
from feste_dp.data.tokenizer import load_tokenizer, train_tokenizer
from feste_dp.data.tokens import Source, open_token_data, write_token_files
from feste_dp.errors import UsageError
from feste_dp.model.hugging_face import open_model, read_weights, settings_for, write_weights
from feste_dp.model.parameters import initial_params, parameter_count
from feste_dp.run.metrics import MetricsRow, MetricsWriter, encode_row, read_metrics, truncate_after
from feste_dp.runtime import messages as m
from feste_dp.runtime.frames import FrameReader
from tests.checkpoint.conftest import TENSORS, example_arrays, example_fields
from tests.fuzz.mutation import mutated_bytes, mutated_json_text
from tests.runtime.test_messages import EXAMPLES

Mutate = Callable[[bytes, random.Random], bytes]
TEXT = "To be, or not to be: that is the question.\n\tÉ 😀\n"
P = 64


@dataclass(frozen=True)
class Target:
    """read takes an input and raises UsageError or ProtocolError where it refuses it."""

    name: str
    count: int
    """Inputs of a whole run."""
    seeds: list[bytes]
    mutate: Mutate
    read: Callable[[bytes], object]

    def input(self, number: int) -> bytes:
        """The input of this number: the same in every run."""
        source = random.Random(f"{self.name} {number}")
        return self.mutate(source.choice(self.seeds), source)


def make_targets(folder: Path) -> list[Target]:
    """All targets; they keep their files in `folder`."""
    return [
        *_frame_targets(),
        *_checkpoint_targets(folder / "checkpoint"),
        *_token_targets(folder / "tokens"),
        *_model_targets(folder / "model"),
        *_config_targets(folder / "config.yaml"),
        *_metrics_targets(folder / "metrics.csv"),
    ]


def one_line(error: Exception) -> None:
    assert str(error).isprintable(), f"not one printable line: {error!r}"
    assert len(str(error)) < 2000, f"a line of {len(str(error))} characters"


def _frame_targets() -> list[Target]:
    token = b"0123456789abcdef" * 2

    def read(data: bytes) -> None:
        try:
            message = m.decode(data)
        except m.ProtocolError as error:
            one_line(error)
        else:
            assert repr(m.decode(m.encode(message))) == repr(message)

    def read_framed(data: bytes) -> None:
        told: list[str] = []
        reader = FrameReader(token, m.REPORTS, m.MAX_FRAME_BYTES, told.append)
        message = reader.read([data[:32], data[32:]])
        assert (message is None) == (reader.dropped == 1) == (len(told) == 1)
        assert message is None or (data[:32] == token and isinstance(message, m.REPORTS))
        assert all(line.isprintable() for line in told)

    seeds = [m.encode(message) for message in EXAMPLES]
    return [
        Target("frame", 100_000, seeds, mutated_bytes, read),
        Target("frame with its token", 50_000, [token + seed for seed in seeds], mutated_bytes, read_framed),
    ]


def _checkpoint_targets(folder: Path) -> list[Target]:
    shutil.rmtree(folder, ignore_errors=True)
    path = write_checkpoint(folder, example_fields(50, P), example_arrays(1, P), file_count=2)
    manifest = (path / "manifest.json").read_bytes()
    shard = (path / "shard-00-of-02.safetensors").read_bytes()
    body = manifest[: manifest.rindex(b",\n")]
    whole = load_checkpoint(path)

    def read_manifest(data: bytes) -> None:
        try:
            decode_manifest(data)
        except UsageError as error:
            one_line(error)
        else:
            assert data == manifest

    def read_sealed(data: bytes) -> None:
        try:
            found = decode_manifest(_seal(data))
        except UsageError as error:
            one_line(error)
        else:
            assert [file.name for file in found.files] == [
                f"shard-{i:02d}-of-{len(found.files):02d}.safetensors" for i in range(len(found.files))
            ]
            assert found.files[0].start == found.layout[0].start == 0
            assert found.files[-1].stop == found.layout[-1].stop == found.parameter_count

    def mutate_sealed(data: bytes, source: random.Random) -> bytes:
        changed = mutated_json_text(data + b"}", source)
        return changed[:-1] if source.random() < 0.95 else mutated_bytes(data, source)

    def read_header(data: bytes) -> None:
        try:
            check_shard_header(data, 32, TENSORS, "shard")
        except UsageError as error:
            one_line(error)
        else:
            assert (
                json.loads(data[8:])["params"] == json.loads(encode_shard_header(32, TENSORS)[8:])["params"]
            )

    def mutate_header(data: bytes, source: random.Random) -> bytes:
        changed = mutated_json_text(data[8:], source)
        length = (
            len(changed) if source.random() < 0.9 else source.choice((0, 2**63, 2**64 - 1, len(changed) + 1))
        )
        return length.to_bytes(8, "little") + changed

    def read_directory(data: bytes) -> None:
        name, content, original = (
            ("shard-00-of-02.safetensors", data[1:], shard)
            if data[:1] == b"s"
            else ("manifest.json", data[1:], manifest)
        )
        (path / name).write_bytes(content)
        try:
            problems = verify_checkpoint(path)
            found = load_checkpoint(path)
        except UsageError as error:
            one_line(error)
            assert problems and name in str(error)
        else:
            assert content == original and not problems
            assert found[1]["v"].tobytes() == whole[1]["v"].tobytes()
        finally:
            (path / name).write_bytes(original)

    return [
        Target("manifest", 20_000, [manifest], mutated_bytes, read_manifest),
        Target("manifest with a right hash", 60_000, [body], mutate_sealed, read_sealed),
        Target("shard header", 50_000, [encode_shard_header(32, TENSORS)], mutate_header, read_header),
        Target("checkpoint file", 20_000, [b"s" + shard, b"m" + manifest], mutated_bytes, read_directory),
    ]


def _seal(body: bytes) -> bytes:
    return body + b',\n "manifest_sha256": "' + hashlib.sha256(body).hexdigest().encode() + b'"\n}\n'


def _token_targets(folder: Path) -> list[Target]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tokenizer = train_tokenizer([TEXT * 3], 262)
    ids = tokenizer.encode(TEXT)
    sources = [Source(name="a.txt", bytes=9, sha256="0" * 64)]
    write_token_files(folder, tokenizer, ids, ids, len(TEXT), len(TEXT), sources)
    files = {name: (folder / name).read_bytes() for name in ("meta.json", "tokenizer.json", "tokens.bin")}

    def read_meta(data: bytes) -> None:
        (folder / "meta.json").write_bytes(data)
        try:
            found = open_token_data(folder)
        except UsageError as error:
            one_line(error)
        else:
            assert len(found.train) + len(found.val) == 2 * len(ids)

    def read_tokenizer(data: bytes) -> None:
        (folder / "other.json").write_bytes(data)
        try:
            found = load_tokenizer(folder / "other.json")
        except UsageError as error:
            one_line(error)
        else:
            encoded = found.encode(TEXT)
            assert found.decode(encoded) == TEXT and int(encoded.max()) < found.vocab_size

    def read_tokens(data: bytes) -> None:
        (folder / "tokens.bin").write_bytes(data)
        meta = json.loads(files["meta.json"]) | {"tokens_sha256": hashlib.sha256(data).hexdigest()}
        (folder / "meta.json").write_text(json.dumps(meta))
        try:
            found = open_token_data(folder, verify=True)
        except UsageError as error:
            one_line(error)
        else:
            assert max(int(found.train.max()), int(found.val.max())) < 262
        finally:
            (folder / "tokens.bin").write_bytes(files["tokens.bin"])
            (folder / "meta.json").write_bytes(files["meta.json"])

    return [
        Target("token meta", 40_000, [files["meta.json"]], mutated_json_text, read_meta),
        Target("tokenizer", 15_000, [files["tokenizer.json"]], mutated_json_text, read_tokenizer),
        Target("tokenizer bytes", 10_000, [files["tokenizer.json"]], mutated_bytes, read_tokenizer),
        Target("token file", 10_000, [files["tokens.bin"]], mutated_bytes, read_tokens),
    ]


def _model_targets(folder: Path) -> list[Target]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    cfg = ModelConfig(vocab_size=256, block_size=2, n_layer=1, n_head=1, n_embd=1, n_inner=1)
    weights = initial_params(cfg, 1)
    write_weights(folder, weights, cfg)
    files = {"config.json": json.dumps(settings_for(cfg, None)).encode()}
    files["model.safetensors"] = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(files["model.safetensors"][:8], "little")
    header, numbers = files["model.safetensors"][8 : 8 + length], files["model.safetensors"][8 + length :]

    def read(name: str) -> Callable[[bytes], None]:
        def read_one(data: bytes) -> None:
            for each, content in (files | {name: data}).items():
                (folder / each).write_bytes(content)
            try:
                model = open_model(folder)
                flat = read_weights(model)
            except UsageError as error:
                one_line(error)
            else:
                assert flat.size == parameter_count(model.config) and np.isfinite(flat).all()

        return read_one

    def with_header(data: bytes, source: random.Random) -> bytes:
        changed = mutated_json_text(data, source)
        return len(changed).to_bytes(8, "little") + changed + numbers

    weights_file = read("model.safetensors")
    return [
        Target("model settings", 20_000, [files["config.json"]], mutated_json_text, read("config.json")),
        Target("weights header", 20_000, [header], with_header, weights_file),
        Target("weights file", 10_000, [files["model.safetensors"]], mutated_bytes, weights_file),
    ]


def _config_targets(path: Path) -> list[Target]:
    seeds = [
        b"model:\n  n_layer: 2\n  n_embd: 64\ntrain:\n  steps: 5\n",
        b"data: {corpus: [a.txt, 'b c.txt']}\noptim: {lr: 3e-4, schedule: linear}\nrun: {pin: [0, 1]}\n",
        b'sample:\n  prompt: "HAMLET.\\n"\n  # a comment\n  temperature: 0.8\neval: {every: 0}\n',
        dump_config(Config()).encode()[:400],
    ]

    def check(read: Callable[[], Config]) -> None:
        try:
            config = read()
        except UsageError as error:
            one_line(error)
        else:
            assert config_from_text(dump_config(config), "again") == config

    def read(data: bytes) -> None:
        path.write_bytes(data)
        check(lambda: load_config(path))

    def read_override(data: bytes) -> None:
        check(lambda: config_from_text("model: {}", "c", [data.decode(errors="surrogateescape")]))

    overrides = [b"train.steps=60", b"sample.prompt=a=b", b"data.corpus=[a, b]", b"optim.lr=3e-4"]
    return [
        Target("config", 20_000, seeds, mutated_bytes, read),
        Target("override", 10_000, overrides, mutated_bytes, read_override),
    ]


def _metrics_targets(path: Path) -> list[Target]:
    rows = [
        MetricsRow(1, 0.5, 1e-3, 4.5, 1.25, 1000.0),
        MetricsRow(2, 1.0, 1e-3, 4.0, 1.0, 1000.0, val_loss=4.25, sample='KING.\n"x", y\n'),
        MetricsRow(3, 1.5, 1e-3, 3.5, float("nan"), 1000.0, val_loss=float("inf")),
    ]
    path.unlink(missing_ok=True)
    with MetricsWriter(path) as writer:
        for row in rows:
            writer.append(row)
    seed = path.read_bytes()

    def read(data: bytes) -> None:
        path.write_bytes(data)
        try:
            found = read_metrics(path)
        except UsageError as error:
            one_line(error)
        else:
            kept = truncate_after(path, 2)
            assert all(row.step <= 2 for row in kept) and repr(read_metrics(path)) == repr(kept)
            with MetricsWriter(path) as writer:
                writer.append(rows[2])
            assert repr(read_metrics(path)) == repr([*kept, rows[2]])
            assert len(kept) <= len(found)

    return [Target("metrics", 40_000, [seed, seed[:-3], encode_row(rows[0])], mutated_bytes, read)]
