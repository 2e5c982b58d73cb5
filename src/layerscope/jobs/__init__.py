"""What a person asks for: run, resume, replay, plan, check prompts. Written once for all experiments."""
