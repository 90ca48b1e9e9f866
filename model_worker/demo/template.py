"""The chat template and the special tokens that the demo and tiny checkpoints share.

The template is Llama 2's: `<s>[INST] prompt [/INST] response </s>`, with the system prompt
folded into the first prompt. It differs from the published one only in refusing what that one
drops without a word: an unknown role, a system message that is not the first, a conversation
that has no prompt.

Three properties the rest of the project relies on, each held by a test:

- the token ids of a conversation are a prefix of the ids of the same conversation one turn on;
- the token ids of a prompt are a prefix of the ids of that prompt with its response;
- every response ends in `</s>`.

A user who types `</s>` or `<s>` types the special token, as with Llama 2's own tokenizer, because
the template's text is tokenized as one string. A user who types `[INST]` types six plain
characters, which the model sees exactly as it sees the template's own. Neither breaks the three
properties; a caller that does not want them in a prompt has to refuse them.
"""

from typing import Final

BOS_TOKEN: Final = "<s>"  # noqa: S105
EOS_TOKEN: Final = "</s>"  # noqa: S105
# A pad token that is not `</s>`: with pad = eos a reward model reads the token before `</s>`.
PAD_TOKEN: Final = "<pad>"  # noqa: S105
# Their places in this list are their token ids.
SPECIAL_TOKENS: Final = (BOS_TOKEN, EOS_TOKEN, PAD_TOKEN)
BOS_TOKEN_ID: Final = 0
EOS_TOKEN_ID: Final = 1
PAD_TOKEN_ID: Final = 2

# `transformers` renders templates with `trim_blocks` and `lstrip_blocks`, so the line breaks after
# block tags and the indentation before them are not part of the text.
CHAT_TEMPLATE: Final = """\
{%- if messages and messages[0]['role'] == 'system' %}
    {%- set system_prompt = '<<SYS>>\\n' + messages[0]['content'] | trim + '\\n<</SYS>>\\n\\n' %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set system_prompt = '' %}
    {%- set turns = messages %}
{%- endif %}
{%- if not turns %}
    {{- raise_exception('A conversation needs at least one user message') }}
{%- endif %}
{%- for message in turns %}
    {%- if message['role'] != ('user' if loop.index0 % 2 == 0 else 'assistant') %}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {{- bos_token + '[INST] ' + (system_prompt if loop.first else '') }}
        {{- message['content'] | trim + ' [/INST]' }}
    {%- else %}
        {{- ' ' + message['content'] | trim + ' ' + eos_token }}
    {%- endif %}
{%- endfor %}
"""
