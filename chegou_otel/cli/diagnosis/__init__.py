"""What `chegou-otel doctor` does: a probe in a process of its own, a question to the backend, and one screen about both.

``probe`` runs in a child process with the user's configuration, which may be slow or broken; ``patient`` runs it and keeps the time;
``backend`` asks whether it arrived; ``findings`` is the table of what may be wrong and what mends it; ``screen`` prints.
"""
