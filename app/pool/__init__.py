"""The prompt pool: prompts that nobody has to write, and the stock of comparisons that is made from them ahead."""
