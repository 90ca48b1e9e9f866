"""What the annotations of a batch say: Llama 2's statistics, shares of strengths and sides, and each annotator's."""
