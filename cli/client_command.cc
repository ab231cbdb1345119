// `millrace client`: one request to a server, its text as it comes.
#include <google/protobuf/util/json_util.h>
#include <grpcpp/grpcpp.h>
#include <CLI/CLI.hpp>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "cli/cli_util.h"
#include "cli/commands.h"
#include "millrace/v1/generation.grpc.pb.h"
#include "service/status_mapping.h"

namespace millrace::cli {
namespace {

constexpr char kName[] = "client";

struct Options {
  std::string target;
  std::string prompt;
  std::string chat;
  std::string system;
  std::vector<std::string> stop;
  std::uint32_t max_new_tokens = 0;
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<std::uint32_t> top_k;
  std::optional<std::uint64_t> seed;
  bool json = false;
};

v1::GenerateRequest MakeRequest(const Options& options, bool limited) {
  v1::GenerateRequest request;
  if (!options.chat.empty()) {
    if (!options.system.empty()) {
      v1::ChatMessage* message = request.mutable_chat()->add_messages();
      message->set_role("system");
      message->set_content(options.system);
    }
    v1::ChatMessage* message = request.mutable_chat()->add_messages();
    message->set_role("user");
    message->set_content(options.chat);
  } else {
    request.set_text(options.prompt);
  }
  v1::SamplingParams* sampling = request.mutable_sampling();
  if (options.temperature) sampling->set_temperature(*options.temperature);
  if (options.top_p) sampling->set_top_p(*options.top_p);
  if (options.top_k) sampling->set_top_k(*options.top_k);
  if (options.seed) sampling->set_seed(*options.seed);
  if (limited) request.mutable_stopping()->set_max_new_tokens(options.max_new_tokens);
  for (const std::string& text : options.stop) {
    request.mutable_stopping()->add_stop_strings(text);
  }
  return request;
}

void PrintMessage(const v1::GenerateResponse& message, bool json) {
  if (json) {
    google::protobuf::util::JsonPrintOptions print;
    print.preserve_proto_field_names = true;
    std::string line;
    if (google::protobuf::util::MessageToJsonString(message, &line, print).ok()) {
      std::puts(line.c_str());
    }
  } else {
    std::fputs(message.text().c_str(), stdout);
  }
  std::fflush(stdout);
}

void PrintTimings(const v1::Usage& usage, double first_token, double total) {
  const double after_first = total - first_token;
  const double tokens = usage.completion_tokens();
  std::fprintf(stderr,
               "\nprompt %u tokens, first token after %.3f s; generated %u tokens in %.3f s "
               "(%.1f tok/s)\n",
               usage.prompt_tokens(), first_token, usage.completion_tokens(), total,
               tokens > 1 && after_first > 0 ? (tokens - 1) / after_first : 0.0);
}

int Stream(const Options& options, const v1::GenerateRequest& request) {
  const auto channel = grpc::CreateChannel(options.target, grpc::InsecureChannelCredentials());
  const auto stub = v1::GenerationService::NewStub(channel);
  grpc::ClientContext context;
  const SteadyClock clock;
  const TimePoint begin = clock.Now();
  const auto reader = stub->Generate(&context, request);
  v1::GenerateResponse message;
  v1::Usage usage;
  double first_token = 0;
  while (reader->Read(&message)) {
    if (first_token == 0 && message.token_ids_size() > 0) {
      first_token = ToSeconds(clock.Now() - begin);
    }
    PrintMessage(message, options.json);
    if (message.has_usage()) usage = message.usage();
  }
  const grpc::Status status = reader->Finish();
  if (!status.ok()) {
    if (!options.json && first_token > 0) std::putchar('\n');
    return Fail(kName, std::string(CodeName(status.error_code())) + ": " + status.error_message() +
                           " (from " + options.target + ")");
  }
  if (!options.json) PrintTimings(usage, first_token, ToSeconds(clock.Now() - begin));
  return 0;
}

}  // namespace

int RunClient(int argc, char** argv) {
  CLI::App app("Streams one request; text goes to stdout, timings to stderr", kName);
  Options options;
  app.add_option("--target", options.target, "HOST:PORT of the server")->required();
  auto* prompt = app.add_option("--prompt", options.prompt, "Raw text to go on with");
  auto* chat = app.add_option("--chat", options.chat,
                              "What a user says, put into the model's chat template");
  prompt->excludes(chat);
  app.add_option("--system", options.system, "With --chat: the system message")->needs(chat);
  auto* limit = app.add_option("--max-new-tokens", options.max_new_tokens,
                               "At most so many tokens; default: up to the context");
  app.add_option("--temperature", options.temperature, "0 is greedy; default: the server's, 1");
  app.add_option("--top-p", options.top_p, "0 < P <= 1");
  app.add_option("--top-k", options.top_k, "0: off");
  app.add_option("--seed", options.seed, "Makes sampling repeatable");
  app.add_option("--stop", options.stop, "Text that ends the answer; may be given often");
  app.add_flag("--json", options.json, "Prints every message as one line of JSON");
  if (const auto code = ParseFlags(&app, argc, argv)) return *code;
  if (prompt->empty() && chat->empty()) {
    return Fail(kName, "one of --prompt and --chat is required; see 'millrace client --help'", 2);
  }
  return Stream(options, MakeRequest(options, !limit->empty()));
}

}  // namespace millrace::cli
