"""The shell: it runs what the core orders, and owns every clock, task, thread and `Result`."""
