"""Draws responses through an inference server: vLLM, SGLang, or another one with OpenAI's completions API."""
