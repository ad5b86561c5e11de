"""What starts a training: a push, a schedule, new data, drift, decay, a person."""
