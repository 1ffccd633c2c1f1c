"""Loggers of a run's metrics in addition to `metrics.jsonl`: TensorBoard, wandb, mlflow, trackio, swanlab."""
