"""The annotator's workspace: write a prompt, see two responses, choose, go on with the chosen one."""
