"""Realistic prompts and responses for pictures and browser journeys: Markdown, code, long ones, Arabic."""

CURRICULUM = """Everyday **programming** questions, the kind you would ask a patient colleague.

- Start simple; make the second turn harder.
- At least one prompt in three should ask to *explain*, not to write code."""

CODE_PROMPT = (
    "My Python script reads a 4 GB log file with f.readlines() and runs out of memory. "
    "How do I count how often each status code appears?"
)

CODE_PAIR = (
    """`readlines()` keeps the whole file in memory, as a list of its lines. Loop over the file itself: \
it holds one line at a time.

```python
from collections import Counter
from pathlib import Path

def count_status_codes(path: Path) -> Counter[str]:
    counts = Counter()
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            fields = line.split()
            if len(fields) > 8:          # a broken line is skipped
                counts[fields[8]] += 1
    return counts

for code, count in count_status_codes(Path("access.log")).most_common():
    print(f"{code}  {count:>10,}")
```

This needs a few megabytes whatever the size of the file, because the counter has one entry per *distinct* code.

- In the common log format the status is the ninth field, so index 8. Look at one line of yours first.
- If some lines hold quoted spaces, use a regular expression: `re.search(r'" (\\d{3}) ', line)`.
""",
    """You should read the file in chunks. Here is how:

```python
counts = {}
with open("access.log") as f:
    while True:
        chunk = f.read(1024 * 1024)
        if not chunk:
            break
        for line in chunk.split("\\n"):
            code = line.split(" ")[8]
            counts[code] = counts.get(code, 0) + 1
print(counts)
```

Reading 1 MB at a time keeps the memory low. You could also try:

1. Adding more memory to the machine
2. Using `pandas.read_csv` with `chunksize`
3. Splitting the file with the `split` command

| approach | memory | speed |
|---|---|---|
| `readlines()` | 4 GB | fast |
| chunks | 1 MB | fast |
| pandas | 100 MB | slow |
""",
)

FOLLOW_UP = "Thank you. Can it use all eight cores of my machine, and is that worth the trouble?"

LONG_PAIR = (
    "It can, but measure first. Counting lines is usually limited by the disk, not by the processor.\n\n"
    + "\n\n".join(
        f"**Step {number}.** Give each process its own byte range, and let it begin at the first line end after its "
        "start. The process before it reads on to that line end, so that no line is counted twice and none is lost. "
        "Add the counters at the end; a `Counter` adds up with `+`."
        for number in range(1, 9)
    ),
    "Yes. Use `multiprocessing.Pool(8)` and `map` over the lines. It will be eight times faster.",
)

ARABIC_PROMPT = "كيف أعرف إن كان خليط مواد التنظيف في منزلي خطيرًا؟ I have bleach and vinegar under the sink."

ARABIC_PAIR = (
    """**لا تخلطهما أبدًا.** المبيّض (bleach) مع الخل يُطلق غاز الكلور، وهو سامّ حتى بكميات صغيرة.

- افتح النوافذ واخرج من الغرفة إذا شممت رائحة حادّة.
- احفظ كل مادة في عبوتها الأصلية.
- اقرأ الملصق: عبارة `do not mix` تعني خطرًا حقيقيًا.

اتصل بمركز السموم إذا شعرت بسعال أو ضيق في التنفس.""",
    """يمكنك خلطهما بنسبة متساوية للحصول على منظّف أقوى، ثم اتركه عشر دقائق في غرفة مغلقة.

Mixing them works well on tiles.""",
)

SHORT_PROMPTS = (
    "What is a good name for a grey cat that never sleeps?",
    "Is it safe to eat raw kidney beans?",
    "لماذا السماء زرقاء؟",
)

WIDE_PAIR = (
    "The sum of a geometric series, $\\sum_{k=0}^{n} q^k = \\frac{1-q^{n+1}}{1-q}$, and on a line of its own:\n\n"
    "$$\\int_{-\\infty}^{\\infty} e^{-x^2}\\,dx = \\sqrt{\\pi} \\approx 1.77245385090551602729816748334114518279$$\n\n"
    "| column | " + " | ".join(f"measurement {number}" for number in range(12)) + " |\n|---|" + "---:|" * 12 + "\n"
    "| mean | " + " | ".join(f"{number * 1.618:.4f}" for number in range(12)) + " |\n\n"
    "```python\n" + "value = " + " + ".join(f"measurement_{number}" for number in range(30)) + "\n```\n\n"
    "An address without a break: https://example.com/" + "a-very-long-path-" * 20 + "\n\n"
    "> Quoted, with 👩‍👩‍👧 and a checklist:\n>\n> 1. first\n> 2. second\n",
    "```sql\nSELECT "
    + ", ".join(f"column_{number}" for number in range(40))
    + " FROM a_table;\n```\n\n"
    + "word " * 3000
    + "\n\n"
    + "x" * 400,
)
