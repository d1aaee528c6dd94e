"""What transformers writes is read, to the same logits; what is no GPT-2 of ours is refused by its name."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from feste_dp.errors import UsageError
from feste_dp.model.hugging_face import open_model, read_weights, settings_for, write_weights
from tests.model.hugging_face import LOGITS_TOLERANCE, SMALL, logits_of, make_model, own_logits


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder that transformers wrote, not to be changed."""
    folder = tmp_path_factory.mktemp("model")
    make_model().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy that a test may change."""
    for path in saved.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def change_settings(folder, **changes):
    path = folder / "config.json"
    settings = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in settings.items() if value != "absent"}))


def read(folder):
    model = open_model(folder)
    return read_weights(model), model.config


def assert_same_logits(folder, model, rng):
    flat, cfg = read(folder)
    tokens = rng.integers(0, cfg.vocab_size, (2, cfg.block_size))
    difference = np.abs(own_logits(flat, cfg, tokens) - logits_of(model, tokens)).max()
    assert difference < LOGITS_TOLERANCE


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"tie_word_embeddings": False},
        {"n_inner": 77},
        {"n_inner": 120},
        {"activation_function": "gelu_pytorch_tanh", "tie_word_embeddings": False},
    ],
    ids=str,
)
def test_a_model_of_transformers_gives_the_same_logits(settings, tmp_path, rng):
    model = make_model(**settings)
    model.save_pretrained(tmp_path)
    assert_same_logits(tmp_path, model, rng)
    assert open_model(tmp_path).config.n_inner == settings.get("n_inner", 0) % 120


def test_many_files_are_read_by_their_index(tmp_path, rng):
    model = make_model(tie_word_embeddings=False)
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert_same_logits(tmp_path, model, rng)
    name = sorted(tmp_path.glob("model-*.safetensors"))[1]
    name.unlink()
    with pytest.raises(UsageError, match=f"{name.name} cannot be read"):
        open_model(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"wte.weight": "../model.safetensors"}}))
    with pytest.raises(UsageError, match="no safetensors file of its folder"):
        open_model(tmp_path)


def test_the_names_and_masks_of_openai_are_read(folder, saved, rng):
    tensors = load_file(folder / "model.safetensors")
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    for layer in range(SMALL["n_layer"]):
        tensors[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 40, 40).tril()
        tensors[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    expected, _ = read(saved)
    assert np.array_equal(read(folder)[0], expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32(folder, dtype):
    tensors = load_file(folder / "model.safetensors")
    stored = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    flat, _ = read(folder)
    wte = stored["transformer.wte.weight"].to(torch.float32).numpy()
    assert np.array_equal(flat[: wte.size].reshape(wte.shape), wte)


def test_a_head_that_repeats_the_embedding_is_tied_and_another_is_refused(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()
    save_file(tensors, folder / "model.safetensors")
    read(folder)
    tensors["lm_head.weight"][7, 3] += 1
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UsageError, match=r"lm_head.weight is not wte.weight.*set it to false"):
        read(folder)
    change_settings(folder, tie_word_embeddings=False)
    _, cfg = read(folder)
    assert not cfg.tie_embeddings


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "llama"}, "model_type is 'llama': only 'gpt2'"),
        ({"model_type": "absent"}, "model_type is None"),
        ({"activation_function": "relu"}, "activation_function is 'relu': only 'gelu_new'"),
        ({"activation_function": "gelu"}, "activation_function is 'gelu'"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon is 1e-06: only 1e-05"),
        ({"scale_attn_weights": False}, "scale_attn_weights is False"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
        ({"add_cross_attention": True}, "add_cross_attention is True"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is"),
        ({"rotary": True}, "'rotary' is True: an option that is not known here"),
        ({"n_inner": -3}, "n_inner is -3"),
        ({"n_head": 7}, "n_head 7 does not divide n_embd 30"),
        ({"n_layer": 3}, r"the tensor h.2.\S+ is missing"),
        ({"n_layer": 1}, r"the tensor 'h.1.\S+' is none of a GPT-2 of this shape"),
        ({"n_positions": 41}, r"wpe.weight has the shape \[40, 30\] where config.json says \[41, 30\]"),
        ({"vocab_size": 2**40}, "vocab_size: "),
        ({"n_embd": "30"}, "n_embd: "),
        ({"tie_word_embeddings": False}, "lm_head.weight is missing"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_the_model_here_does_not_do_is_refused_by_its_name(folder, changes, words):
    change_settings(folder, **changes)
    with pytest.raises(UsageError, match=words) as caught:
        open_model(folder)
    assert str(caught.value).isprintable()


def test_settings_that_change_no_logit_are_taken(folder):
    change_settings(
        folder, reorder_and_upcast_attn=True, summary_type="cls_index", attn_pdrop=0.3, rotary=False, n_ctx=40
    )
    open_model(folder)


def test_a_pickle_is_refused_with_the_line_that_converts_it(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(
        UsageError, match=r'convert it where you trust it, with: python -c "from transformers'
    ):
        open_model(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(UsageError, match=r"has no model\.safetensors"):
        open_model(folder)


def test_damaged_weights_are_one_line(folder):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])

    def with_header(change):
        document = json.loads(json.dumps(header))
        change(document)
        text = json.dumps(document).encode()
        return len(text).to_bytes(8, "little") + text + content[8 + length :]

    first = next(name for name in header if name.startswith("transformer"))
    for damaged in (
        b"",
        content[:100],
        content[:-1],
        content + b"\0",
        b"\xff" * 8 + content[8:],
        with_header(lambda document: document[first].update(shape=[2**40, 2**40])),
        with_header(lambda document: document[first].update(dtype="F99")),
        with_header(lambda document: document[first].update(data_offsets=[-1, 5])),
        with_header(lambda document: document.pop(first)),
        with_header(lambda document: document.update({"x": 1})),
    ):
        path.write_bytes(damaged)
        with pytest.raises(UsageError) as caught:
            open_model(folder)
        assert str(caught.value).isprintable()
    numbers = np.frombuffer(content[8 + length :], np.float32).copy()
    numbers[17] = np.nan
    path.write_bytes(content[: 8 + length] + numbers.tobytes())
    with pytest.raises(UsageError, match="has NaN"):
        read(folder)


def test_what_is_written_is_read_back(saved, tmp_path):
    flat, cfg = read(saved)
    write_weights(tmp_path, flat, cfg)
    (tmp_path / "config.json").write_text(json.dumps(settings_for(cfg, 5)))
    again, same = read(tmp_path)
    assert np.array_equal(flat, again) and same == cfg


def test_gpt2_of_124_million_is_read(tmp_path, rng):
    model = make_model(noise=False, n_positions=1024, vocab_size=50257, n_layer=12, n_head=12, n_embd=768)
    model.save_pretrained(tmp_path)
    flat, cfg = read(tmp_path)
    assert flat.size == 124_439_808
    tokens = rng.integers(0, 50257, (1, 16))
    assert np.abs(own_logits(flat, cfg, tokens) - logits_of(model, tokens)).max() < LOGITS_TOLERANCE
