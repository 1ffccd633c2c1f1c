"""Where a run's metrics go besides `metrics.jsonl`: TensorBoard, wandb, mlflow, trackio, swanlab."""
