#!/usr/bin/env python3
"""The synthetic models of tools/synth_gguf.py: numpy alone writes what the gguf package would."""
import hashlib
import pathlib
import subprocess
import sys
import tempfile
import unittest

import gguf
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import gguf_format  # noqa: E402
import synth_gguf  # noqa: E402


def synthesise(path, *flags, python=()):
    subprocess.run([sys.executable, *python, ROOT / "tools/synth_gguf.py", path, *flags], check=True, capture_output=True)
    return path


def header_of_the_package(path, plan, shape, quant, vocabulary):
    """The same header, written by the gguf package."""
    tokens, types, merges = vocabulary
    writer = gguf.GGUFWriter(str(path), "qwen3moe" if shape["experts"] else "qwen3")
    writer.add_name("both")
    if quant in synth_gguf.FILE_TYPES:
        writer.add_file_type(synth_gguf.FILE_TYPES[quant])
    writer.add_block_count(shape["layers"])
    writer.add_context_length(40960)
    writer.add_embedding_length(shape["hidden"])
    writer.add_feed_forward_length(shape["dense_ff"])
    writer.add_head_count(shape["heads"])
    writer.add_head_count_kv(shape["kv_heads"])
    writer.add_key_length(shape["head_dim"])
    writer.add_value_length(shape["head_dim"])
    writer.add_rope_freq_base(1e6)
    writer.add_layer_norm_rms_eps(1e-6)
    if shape["experts"]:
        writer.add_expert_count(shape["experts"])
        writer.add_expert_used_count(shape["used"])
        writer.add_expert_feed_forward_length(shape["expert_ff"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_bos_token_id(tokens.index("<|endoftext|>"))
    writer.add_pad_token_id(tokens.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(synth_gguf.CHAT_TEMPLATE)
    for tensor in plan:
        kind = gguf.GGMLQuantizationType(int(tensor.kind))
        if kind in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16):
            dtype = np.dtype(np.float32 if kind == gguf.GGMLQuantizationType.F32 else np.float16)
            writer.add_tensor_info(tensor.name, tensor.shape, dtype, tensor.nbytes, raw_dtype=kind)
        else:
            row_bytes = tensor.nbytes // int(np.prod(tensor.shape[:-1]))
            writer.add_tensor_info(tensor.name, (*tensor.shape[:-1], row_bytes), np.dtype(np.uint8), tensor.nbytes,
                                   raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    head = path.read_bytes()
    return head + bytes(-len(head) % gguf.GGUF_DEFAULT_ALIGNMENT)


class SynthesisedModels(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def test_every_header_is_that_of_the_gguf_package(self):
        vocabulary = synth_gguf.own_vocabulary(1000)
        for preset, shape in synth_gguf.PRESETS.items():
            for quant in synth_gguf.QUANTS:
                with self.subTest(preset=preset, quant=quant):
                    plan = list(synth_gguf.tensor_plan(shape, shape["layers"], 1000, quant))
                    header = synth_gguf.make_header("both", shape, shape["layers"], quant, vocabulary)
                    for tensor in plan:
                        header.tensor(tensor.name, tensor.kind, tensor.shape, tensor.nbytes)
                    wanted = header_of_the_package(self.folder / "head.gguf", plan, shape, quant, vocabulary)
                    self.assertEqual(header.pack(), wanted)

    def test_types_have_the_numbers_and_blocks_of_the_gguf_package(self):
        for kind, block in gguf_format.BLOCKS.items():
            self.assertEqual(gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind.name]], block)
            self.assertEqual(gguf.GGMLQuantizationType[kind.name], int(kind))

    def test_the_gguf_package_reads_weights_of_the_deviation_that_was_asked_for(self):
        for quant in ("q4_k_m", "q8_0", "bf16"):
            reader = gguf.GGUFReader(synthesise(self.folder / "m.gguf", "--preset", "tiny", "--layers", "1", "--quant", quant))
            names = [tensor.name for tensor in reader.tensors]
            self.assertIn("blk.0.ffn_down_exps.weight", names)
            for tensor in reader.tensors:
                with self.subTest(quant=quant, tensor=tensor.name):
                    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
                    self.assertTrue(np.isfinite(values).all())
                    if "norm" not in tensor.name and "gate_inp" not in tensor.name:
                        self.assertAlmostEqual(float(values.std()), synth_gguf.STD, delta=0.15 * synth_gguf.STD)

    def test_the_same_arguments_write_the_same_bytes_on_any_number_of_threads(self):
        digests = {hashlib.sha256(synthesise(self.folder / "m.gguf", "--preset", "mini", "--layers", "1", "--threads",
                                             threads).read_bytes()).hexdigest() for threads in ("1", "2", "5")}
        self.assertEqual(len(digests), 1)
        other = synthesise(self.folder / "m.gguf", "--preset", "mini", "--layers", "1", "--seed", "8")
        self.assertNotIn(hashlib.sha256(other.read_bytes()).hexdigest(), digests)

    def test_numpy_is_all_that_is_needed(self):
        program = ("import sys, runpy; sys.modules['gguf'] = None; sys.argv[1:2] = []; sys.path.insert(0, 'tools');"
                   "runpy.run_path('tools/synth_gguf.py', run_name='__main__')")
        done = subprocess.run([sys.executable, "-c", program, "-", str(self.folder / "m.gguf"), "--preset", "tiny",
                               "--layers", "1"], cwd=ROOT, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        gguf.GGUFReader(self.folder / "m.gguf")

    def test_the_vocabulary_of_a_file_is_what_the_gguf_package_reads(self):
        path = ROOT / "models/story-moe-q4_k_m.gguf"
        fields = gguf.GGUFReader(path).fields
        tokens, types, merges = synth_gguf.read_vocabulary(path, None)
        self.assertEqual(tokens, fields["tokenizer.ggml.tokens"].contents())
        self.assertEqual(merges, fields["tokenizer.ggml.merges"].contents())
        self.assertEqual(types, fields["tokenizer.ggml.token_type"].contents())


if __name__ == "__main__":
    unittest.main()
