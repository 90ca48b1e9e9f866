"""Reward models: data, encoding, loss, plan, training, evaluation and scoring (Llama 2, section 3.2)."""
