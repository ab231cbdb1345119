#!/usr/bin/env python3
"""Writes copies of the scheduler's sources with bugs in them, for the simulation to find.

usage: tests/sim/plant_mutants.py --root DIR --out DIR

Every bug is a few edits of the sources as they stand: `old` must be there exactly once, so that the table follows the code.
In `new`, MUTANT is true in a process that plays this bug; with none played the copies do what the sources do. Writes the copies
and mutants_table.cc with names and origins. Origins are issues of other engines in which such a bug was met (facts only), or
"own". The serving binary has none of this.
"""
import argparse
import pathlib
import sys

KV = "scheduler/kv_manager.cc"
POOL = "runtime/kv/block_pool.cc"
CACHE = "runtime/kv/prefix_cache.cc"
SCHEDULER = "scheduler/scheduler.cc"
SEQUENCE = "scheduler/sequence.cc"
QUEUE = "scheduler/wait_queue.cc"
SHARE = "scheduler/fair_share.cc"
ADMISSION = "scheduler/admission.cc"
SOURCES = [KV, POOL, CACHE, SCHEDULER, SEQUENCE, QUEUE, SHARE, ADMISSION, "scheduler/cost_model.cc"]

# name, origin, edits of (file, old, new)
MUTANTS = [
    ("blocks are free before the step in flight ends", "vLLM 45357",
     [(KV, "if (launched_ == done_ || blocks.empty())", "if (MUTANT || launched_ == done_ || blocks.empty())")]),
    ("deferred blocks are not counted", "vllm-ascend 16315",
     [(KV, "num_deferred_ += static_cast<std::int32_t>(blocks.size());",
       "if (!MUTANT) num_deferred_ += static_cast<std::int32_t>(blocks.size());")]),
    ("deferred blocks come back one step early", "vLLM 45357",
     [(KV, "deferred_.front().until <= done_", "deferred_.front().until <= done_ + (MUTANT ? 1 : 0)")]),
    ("a block that is not yet full is found", "vLLM 54193",
     [(KV, "const std::int32_t full = computed / block_size_;",
       "const std::int32_t full = std::min<std::int32_t>((computed + (MUTANT ? 1 : 0)) / block_size_, "
       "static_cast<std::int32_t>(tokens.size()) / block_size_);")]),
    ("a block is found in the step that computes it", "vLLM 38715",
     [(SCHEDULER, "  s->scheduled = end;\n",
       "  s->scheduled = end;\n  if (MUTANT && end <= known && UsesCache(s->request()))\n"
       "    kv_.Remember(s->tokens, end, s->group->salt, &s->blocks);\n")]),
    ("what is evicted is still found", "vLLM 38606",
     [(KV, "for (const BlockId id : evicted) cache_.Evict(id);",
       "if (!MUTANT)\n    for (const BlockId id : evicted) cache_.Evict(id);")]),
    ("an aborted request's blocks are used after they are free", "vLLM 37076",
     [(SCHEDULER, "void Scheduler::Detach(Sequence* sequence) {\n  kv_.Release(&sequence->blocks);",
       "void Scheduler::Detach(Sequence* sequence) {\n  if (!MUTANT) kv_.Release(&sequence->blocks);")]),
    ("who cannot go on ends the round for all", "vLLM 35852",
     [(SCHEDULER, "    if (CanAdvance(*sequence)) ScheduleSequence(sequence, pass);",
       "    if (MUTANT && !CanAdvance(*sequence)) break;\n"
       "    if (CanAdvance(*sequence)) ScheduleSequence(sequence, pass);")]),
    ("the last in the queue is never admitted", "vLLM 45406",
     [(SCHEDULER, "  for (;;) {",
       "  while (!(MUTANT && waiting_.size() == 1)) {")]),
    ("one of the very step is preempted", "BLIS R21",
     [(SCHEDULER, "return !planned(s) &&", "return (MUTANT ? planned(s) : !planned(s)) &&")]),
    ("a step's late end counts for a later admission", "LMCache 4185",
     [(SCHEDULER, "if (s->state == SequenceState::kPreempted || s->admission != planned.admission) return;",
       "if (!MUTANT && (s->state == SequenceState::kPreempted || s->admission != planned.admission)) return;")]),
    ("a token that is not finite is sent", "sglang 33187",
     [(SCHEDULER, "  if (!sampled.finite) {", "  if (!MUTANT && !sampled.finite) {")]),
    ("who is cancelled stays", "vLLM 46283",
     [(SCHEDULER, "  Emit(*group, now, CancelledEvent{group->UsageAt(now)});\n  Remove(group);",
       "  Emit(*group, now, CancelledEvent{group->UsageAt(now)});\n  if (!MUTANT) Remove(group);")]),
    ("a cancel is lost", "BLIS 183",
     [(SCHEDULER, "  if (group == nullptr) return;\n  Emit(*group, now, CancelledEvent",
       "  if (group == nullptr || (MUTANT && group->sequences[0]->pending > 0)) return;\n  Emit(*group, now, CancelledEvent")]),
    ("an end is sent twice", "BLIS INV-1",
     [(SCHEDULER, "  if (last) return Remove(group);\n", "  if (MUTANT) events_.push_back(events_.back());\n  if (last) return Remove(group);\n")]),
    ("the table has a stale tail", "tenstorrent 103",
     [(SCHEDULER, "  batch.block_table_start.push_back(static_cast<std::int32_t>(batch.block_table.size()));",
       "  if (MUTANT && s->blocks.num_blocks() > BlocksFor(end, kv_.block_size()))\n"
       "    batch.block_table.push_back(s->blocks.block(s->blocks.num_blocks() - 1).value());\n"
       "  batch.block_table_start.push_back(static_cast<std::int32_t>(batch.block_table.size()));")]),
    ("one caller's prefix is found by another", "vLLM 13408",
     [(CACHE, "(a.before != kNoPrefix || a.salt == b.salt)", "(MUTANT || a.before != kNoPrefix || a.salt == b.salt)"),
      (CACHE, "key.before == kNoPrefix ? key.salt : std::string_view()",
       "!MUTANT && key.before == kNoPrefix ? key.salt : std::string_view()")]),
    ("a shared block is free when the first leaves", "vLLM 37076",
     [(POOL, "if (--block.references > 0) return;", "if (--block.references > 0 && !MUTANT) return;")]),
    ("a block that is found stays in the free list", "vLLM 37076",
     [(POOL, "if (block.references++ == 0) kept_free_.erase(block.place);",
       "if (block.references++ == 0 && !MUTANT) kept_free_.erase(block.place);")]),
    ("a first token before its step is aborted as running", "vLLM 18485",
     [(QUEUE, "  prompt_tokens_ -= sequence->prompt_to_compute();", "  if (!MUTANT) prompt_tokens_ -= sequence->prompt_to_compute();")]),
    ("late arrivals go first", "vLLM 15996",
     [(QUEUE, "  return turn_a < turn_b;", "  return MUTANT ? turn_b < turn_a : turn_a < turn_b;")]),
    ("paused ones are never resumed", "vLLM 45388",
     [(SCHEDULER, "    if (!behind) {\n", "    if (!behind && !(MUTANT && group->behind())) {\n")]),
    ("a hit covers the last token", "own",
     [(KV, "(length - 1) / block_size_", "(length - (MUTANT ? 0 : 1)) / block_size_")]),
    ("found blocks count as free for the rest", "own",
     [(KV, "if (pool_.references(entry.block) == 0) --free;", "if (!MUTANT && pool_.references(entry.block) == 0) --free;")]),
    ("a copy of a known block is kept too", "own",
     [(KV, "if (entry.block == id) pool_.Keep(id);", "if (MUTANT || entry.block == id) pool_.Keep(id);")]),
    ("a prefix is known by its last block alone", "own",
     [(KV, "table->SetKnown(block + 1, entry.prefix);",
       "table->SetKnown(block + 1, MUTANT ? table->known_prefix() : entry.prefix);")]),
    ("a block too few is reserved", "own",
     [(KV, "BlocksFor(positions, block_size_) - table->num_blocks()",
       "BlocksFor(positions - (MUTANT ? 1 : 0), block_size_) - table->num_blocks()")]),
    ("a block more than there is is given", "own",
     [(POOL, "if (count > num_free()) return std::nullopt;",
       "if (count > num_free() + (MUTANT && num_free() > 0 ? 1 : 0)) return std::nullopt;")]),
    ("an evicted block is still kept", "own",
     [(POOL, "blocks_[Index(id)].kept = false;\n    if (evicted", "blocks_[Index(id)].kept = MUTANT;\n    if (evicted")]),
    ("a reference is not counted", "own",
     [(POOL, "  return BlockRef(this, id);",
       "  if (MUTANT && block.references > 1) --block.references;\n  return BlockRef(this, id);")]),
    ("a second block of the same contents replaces the first", "own",
     [(CACHE, "if (const auto found = Find(key)) return *found;", "if (const auto found = Find(key); found && !MUTANT) return *found;")]),
    ("a preempted sequence goes on one position late", "own",
     [(SCHEDULER, "  sequence->scheduled = sequence->computed = *found;",
       "  sequence->scheduled = sequence->computed =\n      *found + (MUTANT && sequence->admission > 0 && *found + 1 < sequence->length() ? 1 : 0);")]),
    ("a preempted sequence has computed what it had", "own",
     [(SCHEDULER, "  victim->computed = 0;\n", "  if (!MUTANT) victim->computed = 0;\n")]),
    ("preemptions are not counted", "own",
     [(SCHEDULER, "  ++victim->group->preemptions;\n", "  if (!MUTANT) ++victim->group->preemptions;\n")]),
    ("who is preempted is forgotten", "own",
     [(SCHEDULER, "  waiting_.Push(victim);", "  if (!MUTANT) waiting_.Push(victim);")]),
    ("a token is expected for good", "own",
     [(SCHEDULER, "      --sequence->pending;\n", "      if (!MUTANT || sequence->generated() != 3) --sequence->pending;\n")]),
    ("one token too many", "own",
     [(SEQUENCE, "s->generated() >= static_cast<std::int32_t>(stopping.max_new_tokens)",
       "s->generated() >= static_cast<std::int32_t>(stopping.max_new_tokens) + (MUTANT ? 1 : 0)"),
      (SCHEDULER, "  return s.to_generate() > 0 ||", "  return s.to_generate() + (MUTANT ? 1 : 0) > 0 ||"),
      (SCHEDULER, "if (end == s->length() && s->to_generate() > 0) {", "if (end == s->length() && s->to_generate() + (MUTANT ? 1 : 0) > 0) {")]),
    ("an end token does not end", "own",
     [(SEQUENCE, "  if (Contains(stopping.end_token_ids, token)) {", "  if (!MUTANT && Contains(stopping.end_token_ids, token)) {")]),
    ("a deadline is passed by a moment", "own",
     [(SCHEDULER, "if (group->request.deadline <= now) late", "if (group->request.deadline < now || (!MUTANT && group->request.deadline <= now)) late")]),
    ("only who waits expires", "own",
     [(SCHEDULER, "    Fail(group, absl::DeadlineExceededError(",
       "    if (!MUTANT || group->first_scheduled == TimePoint{})\n      Fail(group, absl::DeadlineExceededError(")]),
    ("a step has a sequence too many", "own",
     [(SCHEDULER, "(pass->plan.sequences.size()) >= places_;", "(pass->plan.sequences.size()) >= places_ + (MUTANT ? 1 : 0);"),
      (SCHEDULER, "if (CountUnpaused() >= places_ ||", "if (CountUnpaused() >= places_ + (MUTANT ? 1 : 0) ||")]),
    ("a step has a token too many", "own",
     [(SCHEDULER, "const std::int32_t num_tokens = std::min(wanted, room);",
       "const std::int32_t num_tokens = std::min(wanted, room + (MUTANT && room > 0 ? 1 : 0));")]),
    ("a token of a step in flight is taken from its first row", "own",
     [(SCHEDULER, "batch.deferred.push_back({batch.num_tokens(), s->pending_ticket, s->pending_row});",
       "batch.deferred.push_back({batch.num_tokens(), s->pending_ticket, MUTANT ? 0 : s->pending_row});")]),
    ("the random stream forgets the step in flight", "own",
     [(SEQUENCE, "row.position = static_cast<std::uint32_t>(generated() + pending);",
       "row.position = static_cast<std::uint32_t>(generated() + (MUTANT ? 0 : pending));")]),
    ("who passes the cache by does not", "own",
     [(SCHEDULER, "  if (request.bypass_prefix_cache) return absl", "  if (!MUTANT && request.bypass_prefix_cache) return absl"),
      (SCHEDULER, "  if (!UsesCache(request)) return kv_.Reserve(", "  if (!MUTANT && !UsesCache(request)) return kv_.Reserve("),
      (SCHEDULER, "  if (UsesCache(s->request())) {", "  if (MUTANT || UsesCache(s->request())) {")]),
    ("one tenant's prefix is found by another", "vLLM 13408",
     [(SCHEDULER, "absl::StrCat(request.tenant.size(), \":\", request.tenant, request.cache_salt)",
       "MUTANT ? request.cache_salt : absl::StrCat(request.tenant.size(), \":\", request.tenant, request.cache_salt)")]),
    ("what is found after a preemption counts as cached", "own",
     [(SCHEDULER, "  if (sequence->admission == 0 && sequence->index == 0)", "  if (MUTANT || (sequence->admission == 0 && sequence->index == 0))")]),
    ("who is preempted often may be so for ever", "own",
     [(SCHEDULER, "s->preemptions < options_.max_preemptions &&", "(MUTANT || s->preemptions < options_.max_preemptions) &&")]),
    ("a sequence is preempted before it has got on", "own",
     [(SCHEDULER, "s->generated() + s->pending > s->generated_at_admission;",
       "(MUTANT || s->generated() + s->pending > s->generated_at_admission);")]),
    ("what a sequence may need is not kept for it", "own",
     [(SCHEDULER, "          ? sequence->length()\n", "          || MUTANT ? sequence->length()\n")]),
    ("a lost device is always INTERNAL", "own",
     [(SCHEDULER, "group->generated == 0 ? absl::UnavailableError(message)", "!MUTANT && group->generated == 0 ? absl::UnavailableError(message)")]),
    ("the tenant with the most tokens goes first", "own",
     [(QUEUE, "return tokens_a < tokens_b;", "return MUTANT ? tokens_b < tokens_a : tokens_a < tokens_b;")]),
    ("tenants do not count", "own",
     [(QUEUE, "if (tokens_a != tokens_b)", "if (!MUTANT && tokens_a != tokens_b)")]),
    ("who was idle has saved up", "own",
     [(SHARE, "  Lift(id, fewest);", "  if (!MUTANT) Lift(id, fewest);")]),
    ("age counts before tenants", "own",
     [(QUEUE, "std::min<std::int64_t>(highest, request.priority + steps)",
       "std::min<std::int64_t>(MUTANT ? 1000 : highest, request.priority + steps)")]),
    ("no class grows with age", "own",
     [(QUEUE, "request.priority + steps)", "request.priority + (MUTANT ? 0 : steps))")]),
    ("the lowest class goes first", "own",
     [(QUEUE, "return class_a > class_b;", "return MUTANT ? class_b > class_a : class_a > class_b;")]),
    ("the tenant with the least in the queue is displaced", "own",
     [(QUEUE, "if (Held(*sequence, limit) < most) continue;", "if (MUTANT ? Held(*sequence, limit) >= most : Held(*sequence, limit) < most) continue;")]),
    ("a full queue is full for all", "own",
     [(ADMISSION, "tenants == 1 || own.sequences + more >", "MUTANT || tenants == 1 || own.sequences + more >")]),
    ("deadlines are no matter of admission", "own",
     [(ADMISSION, "  if (first + rest <= left) return absl::OkStatus();", "  if (MUTANT || first + rest <= left) return absl::OkStatus();")]),
    ("a doomed call is computed", "own",
     [(SCHEDULER, "  if (request.deadline == kNoDeadline ||", "  if (MUTANT || request.deadline == kNoDeadline ||")]),
    ("answers do not wait for their prompt", "own",
     [(SCHEDULER, "    return s.could_go() &&", "    return (MUTANT ? !s.group->behind() : s.could_go()) &&")]),
    ("a doomed answer ends a request that is in the plan", "own",
     [(SCHEDULER, "request.deadline == kNoDeadline || s.group->prompt_computed) return", "request.deadline == kNoDeadline || (MUTANT ? s.group->generated > 0 || s.generates() : s.group->prompt_computed)) return")]),
    ("answers have one random stream", "own",
     [(SEQUENCE, "  row.index = index;", "  row.index = MUTANT ? 0 : index;")]),
    ("the first answer ends the request", "own",
     [(SCHEDULER, "const bool last = group->sequences.size() == 1;", "const bool last = MUTANT || group->sequences.size() == 1;")]),
    ("what was flushed is still found", "own",
     [(KV, "  cache_.Clear();\n  pool_.UnkeepAll();", "  if (!MUTANT) cache_.Clear();\n  if (!MUTANT) pool_.UnkeepAll();")]),
    ("what was flushed is kept for nobody", "own",
     [(POOL, "  free_.insert(free_.end(), kept_free_.begin(), kept_free_.end());\n  kept_free_.clear();",
       "  if (!MUTANT) free_.insert(free_.end(), kept_free_.begin(), kept_free_.end());\n  kept_free_.clear();")]),
    ("what begins before a flush is found after it", "own",
     [(KV, "if (table->flushes() != flushes_) return;", "if (!MUTANT && table->flushes() != flushes_) return;")]),
    ("prices never get old", "own",
     [(ADMISSION, "  if (!idle ||", "  if (MUTANT || !idle ||")]),
    ("prices are always old", "own",
     [(ADMISSION, "silence < CostModel::kKeeps", "(!MUTANT && silence < CostModel::kKeeps)")]),
    ("hits of the doomed count", "own",
     [(SCHEDULER, "    if (DoomedBeforeItBegins(*next, pass->now)) {", "    if (MUTANT && DoomedBeforeItBegins(*next, pass->now)) ReserveForAdmission(next, pass);\n    if (DoomedBeforeItBegins(*next, pass->now)) {")]),
    ("a device without memory is a full queue", "own",
     [(SCHEDULER, ": absl::InternalError(message),", ": MUTANT ? absl::Status(why.code(), message) : absl::InternalError(message),")]),
    ("no answer is the last", "own",
     [(SCHEDULER, "std::move(match), group->UsageAt(now), last}", "std::move(match), group->UsageAt(now), last && !MUTANT}")]),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    a = parser.parse_args()
    for name in SOURCES:
        text = (a.root / name).read_text()
        for number, (bug, _, edits) in enumerate(MUTANTS, start=1):
            for file, old, new in edits:
                if file != name:
                    continue
                if text.count(old) != 1:
                    sys.exit(f"plant_mutants: {name}: '{bug}' has {text.count(old)} places instead of 1: {old!r}")
                text = text.replace(old, new.replace("MUTANT", f"::millrace::sim::Mutant({number})"))
        out = a.out / pathlib.Path(name).name
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text('#include "tests/sim/mutant.h"\n' + text)
    rows = "".join(f'    {{"{name}", "{origin}"}},\n' for name, origin, _ in MUTANTS)
    (a.out / "mutants_table.cc").write_text(
        '#include "tests/sim/mutant.h"\n\nnamespace millrace::sim {\n\n'
        f"const Planted kPlanted[] = {{\n{rows}}};\nconst int kNumPlanted = {len(MUTANTS)};\n\n}}  // namespace millrace::sim\n")


if __name__ == "__main__":
    main()
