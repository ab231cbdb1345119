#include "tests/support/tiny_model.h"

#include <utility>
#include <vector>

namespace millrace::testing {
namespace {

class Writer {
 public:
  explicit Writer(const TinyModel& model) : model_(model) {}

  template <typename T>
  void Key(const std::string& name, T value) {
    if (name != model_.without) builder_.Add(model_.architecture + "." + name, value);
  }
  void Number(const std::string& name, std::int64_t value) {
    Key(name, static_cast<std::uint32_t>(value));
  }
  void Tensor(const std::string& name, std::vector<std::int64_t> shape) {
    if (name == model_.without) return;
    if (model_.reshape) model_.reshape(name, &shape);
    builder_.AddTensor(name, DType::kF32, std::move(shape));
  }
  GgufBuilder& builder() { return builder_; }

 private:
  const TinyModel& model_;
  GgufBuilder builder_;
};

void WriteKeys(const TinyModel& m, Writer* w) {
  if (m.without != "general.architecture") w->builder().Add("general.architecture", m.architecture);
  w->Number("block_count", m.layers);
  w->Number("context_length", 128);
  w->Number("embedding_length", m.hidden);
  w->Number("attention.head_count", m.heads);
  w->Number("attention.head_count_kv", m.kv_heads);
  w->Number("attention.key_length", m.head_dim);
  w->Key("attention.layer_norm_rms_epsilon", 1e-6F);
  w->Key("rope.freq_base", 1e6F);
  w->Number("feed_forward_length", m.ffn);
  if (m.family == "qwen3moe") {
    w->Number("expert_count", m.experts);
    w->Number("expert_used_count", m.used);
    w->Number("expert_feed_forward_length", m.ffn);
  }
}

void WriteLayer(const TinyModel& m, const std::string& at, Writer* w) {
  const std::int64_t q = m.heads * m.head_dim;
  const std::int64_t kv = m.kv_heads * m.head_dim;
  w->Tensor(at + "attn_norm.weight", {m.hidden});
  w->Tensor(at + "attn_q.weight", {q, m.hidden});
  w->Tensor(at + "attn_k.weight", {kv, m.hidden});
  w->Tensor(at + "attn_v.weight", {kv, m.hidden});
  if (m.family == "qwen2") {
    w->Tensor(at + "attn_q.bias", {q});
    w->Tensor(at + "attn_k.bias", {kv});
    w->Tensor(at + "attn_v.bias", {kv});
  }
  if (m.family == "qwen3" || m.family == "qwen3moe") {
    w->Tensor(at + "attn_q_norm.weight", {m.head_dim});
    w->Tensor(at + "attn_k_norm.weight", {m.head_dim});
  }
  w->Tensor(at + "attn_output.weight", {m.hidden, q});
  w->Tensor(at + "ffn_norm.weight", {m.hidden});
  if (m.family == "qwen3moe") {
    w->Tensor(at + "ffn_gate_inp.weight", {m.experts, m.hidden});
    w->Tensor(at + "ffn_gate_exps.weight", {m.experts, m.ffn, m.hidden});
    w->Tensor(at + "ffn_up_exps.weight", {m.experts, m.ffn, m.hidden});
    w->Tensor(at + "ffn_down_exps.weight", {m.experts, m.hidden, m.ffn});
  } else {
    w->Tensor(at + "ffn_gate.weight", {m.ffn, m.hidden});
    w->Tensor(at + "ffn_up.weight", {m.ffn, m.hidden});
    w->Tensor(at + "ffn_down.weight", {m.hidden, m.ffn});
  }
}

void WriteVocabulary(std::int64_t vocab, GgufBuilder* builder) {
  std::vector<std::string> tokens;
  for (std::int64_t i = 0; i < vocab; ++i)
    tokens.push_back(std::string(1, static_cast<char>('a' + i)));
  builder->Add("tokenizer.ggml.model", "gpt2")
      .Add("tokenizer.ggml.pre", "qwen2")
      .Add("tokenizer.ggml.tokens", tokens)
      .Add("tokenizer.ggml.token_type", std::vector<std::int32_t>(tokens.size(), 1))
      .Add("tokenizer.ggml.merges", std::vector<std::string>{});
}

}  // namespace

GgufBuilder BuildTinyModel(const TinyModel& model) {
  Writer writer(model);
  WriteKeys(model, &writer);
  if (!model.no_vocabulary) WriteVocabulary(model.vocab, &writer.builder());
  writer.Tensor("token_embd.weight", {model.vocab, model.hidden});
  for (std::int64_t i = 0; i < model.layers; ++i) {
    WriteLayer(model, "blk." + std::to_string(i) + ".", &writer);
  }
  writer.Tensor("output_norm.weight", {model.hidden});
  if (!model.tied) writer.Tensor("output.weight", {model.vocab, model.hidden});
  if (model.add) model.add(&writer.builder());
  return writer.builder();
}

}  // namespace millrace::testing
