// `millrace serve`: puts the parts together, and takes them apart again in order.
#include <pthread.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/channel.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "base/utf8.h"
#include "cli/cli_util.h"
#include "cli/commands.h"
#include "cli/serve_options.h"
#include "runtime/gguf/gguf_file.h"
#include "runtime/runner/model_loader.h"
#include "scheduler/engine.h"
#include "service/server.h"

namespace millrace::cli {
namespace {

constexpr char kName[] = "serve";

// What wakes the main thread.
enum class Wake { kStop, kFlush, kLoaded, kEngineEnded };
using WakeChannel = Channel<Wake>;

// All threads are started with these blocked, so that only the watcher takes them.
sigset_t Signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGUSR1);
  return signals;
}

// SIGUSR1 asks to forget all prefixes. The first of the others asks for a drain; a second one will
// not wait for it.
void WatchSignals(std::shared_ptr<WakeChannel> wake) {
  std::thread([wake = std::move(wake)] {
    const sigset_t signals = Signals();
    for (bool stopping = false;;) {
      int signal = 0;
      if (sigwait(&signals, &signal) != 0) return;
      if (signal == SIGUSR1) {
        wake->Send(Wake::kFlush);
        continue;
      }
      if (std::exchange(stopping, true)) _exit(128 + signal);
      wake->Send(Wake::kStop);
    }
  }).detach();  // waits for a signal for as long as the process lives
}

absl::StatusOr<std::string> ReadTextFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file) return absl::NotFoundError("--chat-template " + path + ": cannot be read");
  return text;
}

v1::ModelInfo MakeInfo(const ServeOptions& options, const LoadedModel& model,
                       const std::string& chat_template) {
  const ModelFacts& facts = model.facts;
  v1::ModelInfo info;
  // What a file says need not be UTF-8; what a message says must be.
  info.set_name(ReplaceInvalidUtf8(options.model_name.empty() ? facts.name : options.model_name));
  info.set_architecture(facts.architecture);
  info.set_vocab_size(facts.vocab_size);
  info.set_context_length(facts.context_length);
  info.set_layers(facts.layers);
  info.set_hidden(facts.hidden);
  info.set_experts(facts.experts);
  info.set_experts_per_token(facts.experts_per_token);
  info.set_parameters(facts.parameters);
  info.set_active_parameters(facts.active_parameters);
  info.set_file_bytes(facts.file_bytes);
  info.set_quantisation(facts.quantisation);
  info.set_kv_bytes_per_token(facts.kv_bytes_per_token);
  info.set_device(facts.device);
  const auto ends = model.tokenizer->end_tokens();
  info.mutable_eos_token_ids()->Add(ends.begin(), ends.end());
  info.set_chat_template(ReplaceInvalidUtf8(chat_template));
  info.set_version(options.server.version);
  info.set_batch_invariant(facts.batch_invariant);
  return info;
}

absl::StatusOr<std::shared_ptr<const ServedModel>> MakeServedModel(const ServeOptions& options,
                                                                   const LoadedModel& model) {
  auto served = std::make_shared<ServedModel>();
  std::string source = model.chat_template;
  if (!options.chat_template_file.empty()) {
    MILLRACE_ASSIGN_OR_RETURN(source, ReadTextFile(options.chat_template_file));
  }
  served->info = MakeInfo(options, model, source);
  served->tokenizer = model.tokenizer;
  served->chat_status = absl::InvalidArgumentError(
      "prompt: chat needs a template, and the model's file has none; use text or token_ids");
  if (!source.empty()) {
    auto parsed = ChatTemplate::Parse(source, model.bos_text, model.eos_text);
    if (parsed.ok()) {
      served->chat_template = *std::move(parsed);
    } else if (!options.chat_template_file.empty()) {
      return absl::Status(parsed.status().code(),
                          absl::StrCat("--chat-template ", options.chat_template_file, ": ",
                                       std::string(parsed.status().message())));
    } else {
      // Raw prompts still work; a chat is told why it does not.
      served->chat_status = parsed.status();
      Log(LogLevel::kWarning, "the file's chat template cannot be run",
          {{"why", std::string(parsed.status().message())}});
    }
  }
  return served;
}

// The model with the engine that runs it.
struct Loaded {
  LoadedModel model;
  std::shared_ptr<const ServedModel> served;
  TokenChannel channel;
  std::unique_ptr<Engine> engine;  // after what it uses
};

// One short run through every kernel, so that the first request finds everything warm.
absl::Status WarmUp(ModelRunner* runner) {
  ForwardBatch batch;
  batch.token_ids = {0};
  batch.positions = {0};
  batch.query_start = {0, 1};
  batch.context_len = {1};
  batch.block_table = {0};
  batch.block_table_start = {0, 1};
  batch.logit_rows = {0};
  batch.sampling = {RowSampling{}};
  MILLRACE_ASSIGN_OR_RETURN(const StepTicket ticket, runner->Launch(batch));
  return runner->Await(ticket).status();
}

absl::StatusOr<std::unique_ptr<Loaded>> Load(const ServeOptions& options, const Clock* clock) {
  auto loaded = std::make_unique<Loaded>();
  const TimePoint begin = clock->Now();
  {
    ProgressBar bar("loading");
    LoadOptions load = options.load;
    load.progress = [&bar](std::uint64_t done, std::uint64_t total) { bar.Update(done, total); };
    MILLRACE_ASSIGN_OR_RETURN(loaded->model, LoadModel(load));
  }
  MILLRACE_ASSIGN_OR_RETURN(loaded->served, MakeServedModel(options, loaded->model));
  MILLRACE_RETURN_IF_ERROR(WarmUp(loaded->model.runner.get()));
  MILLRACE_ASSIGN_OR_RETURN(
      loaded->engine,
      Engine::Create(options.scheduler, loaded->model.runner.get(),
                     loaded->model.tokenizer->token_bytes(), clock, &loaded->channel));
  const ModelFacts& facts = loaded->model.facts;
  Log(LogLevel::kInfo, "model loaded",
      {{"model", loaded->served->info.name()},
       {"architecture", facts.architecture},
       {"quantisation", facts.quantisation},
       {"device", facts.device},
       {"seconds", ToSeconds(clock->Now() - begin)}});
  Log(LogLevel::kInfo, loaded->model.memory_plan);
  return loaded;
}

// Loads beside the main thread, which answers signals meanwhile.
class Loader {
 public:
  Loader(const ServeOptions& options, const Clock* clock, std::shared_ptr<WakeChannel> wake)
      : thread_([this, &options, clock, wake = std::move(wake)] {
          result_ = Load(options, clock);
          wake->Send(Wake::kLoaded);
        }) {}
  absl::StatusOr<std::unique_ptr<Loaded>> Take() {
    thread_.join();
    return std::move(result_);
  }

 private:
  absl::StatusOr<std::unique_ptr<Loaded>> result_ = absl::UnknownError("not loaded");
  std::thread thread_;  // after what it writes
};

absl::Status Serve(const ServeOptions& options) {
  // A file that is no model is said before anything listens.
  MILLRACE_RETURN_IF_ERROR(GgufFile::Open(options.load.path).status());
  const auto wake = std::make_shared<WakeChannel>();
  WatchSignals(wake);
  const SteadyClock clock;
  std::unique_ptr<Loaded> loaded;  // outlives the server
  MILLRACE_ASSIGN_OR_RETURN(const std::unique_ptr<Server> server,
                            Server::Listen(options.server, &clock));
  {
    Loader loader(options, &clock, wake);
    std::optional<Wake> why = wake->Receive();
    while (why == Wake::kFlush) why = wake->Receive();  // there is nothing to forget yet
    if (why == Wake::kStop) {
      Log(LogLevel::kInfo, "stopped while the model was loading");
      server->ShutDown(Duration::zero());
      // Nothing was accepted; the half-read model is left to the end of the process.
      _exit(0);
    }
    MILLRACE_ASSIGN_OR_RETURN(loaded, loader.Take());
  }
  loaded->engine->Start();
  server->Serve(loaded->served, loaded->engine.get(), &loaded->channel, options.load.block_size,
                [wake] { wake->Send(Wake::kEngineEnded); });
  std::printf("millrace ready grpc=%s metrics=%s\n", server->grpc_address().c_str(),
              server->metrics_address().c_str());
  std::fflush(stdout);
  std::optional<Wake> why = wake->Receive();
  for (; why == Wake::kFlush; why = wake->Receive()) loaded->engine->FlushPrefixCache();
  const bool asked = why == Wake::kStop;
  Log(LogLevel::kInfo, asked ? "draining" : "the device is lost");
  server->ShutDown(options.drain);
  Log(LogLevel::kInfo, "stopped");
  if (!asked) return absl::InternalError("the device is lost; see the log");
  return absl::OkStatus();
}

}  // namespace

int RunServe(int argc, char** argv) {
  // Before the first thread: all inherit the mask.
  const sigset_t signals = Signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  const std::variant<ServeOptions, int> options = ParseServeOptions(argc, argv);
  if (const int* code = std::get_if<int>(&options)) return *code;
  const auto& serve = std::get<ServeOptions>(options);
  ConfigureLog(serve.log_level, serve.log_format);
  const absl::Status status = Serve(serve);
  if (status.ok()) return 0;
  const int code = Fail(kName, status);
  // Where a device hangs, what its driver does at the end of the process may hang, too.
  if (absl::IsInternal(status)) _exit(code);
  return code;
}

}  // namespace millrace::cli
