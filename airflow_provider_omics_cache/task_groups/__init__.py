"""Task groups: what needs several tasks, as one object in a DAG."""
