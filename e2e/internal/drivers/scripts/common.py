"""What the Python clients share: a job on standard input, events on standard output."""
import json
import os
import sys
import time


class Failure(Exception):
    def __init__(self, code, name, message):
        super().__init__(message)
        self.code, self.name, self.message = code, name, message


class Deadline:
    def __init__(self, seconds):
        self.seconds = seconds
        self.end = time.monotonic() + seconds

    def left(self):
        """Seconds left; fails when there are none."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise Failure(0, "TIMEOUT", "not done after %d s" % self.seconds)
        return left


def records(step):
    for i in range(step.get("count", 1)):
        yield step.get("prefix", "") + "k%d" % i, step.get("prefix", "") + "v%d" % i


def topics(step):
    return [step["topic"], *step.get("also", [])]


def text(b):
    return b.decode() if isinstance(b, bytes) else b or ""


def run(client, explain):
    """Runs the steps of the job; client(job) has a method for each kind of step."""
    job = json.load(sys.stdin)
    steps = client(job)
    for number, step in enumerate(job["steps"]):
        def emit(event, **fields):
            print(json.dumps({"step": number, "event": event, **fields}), flush=True)

        try:
            getattr(steps, step["do"].replace("-", "_"))(step, Deadline(step["seconds"]), emit)
            emit("done")
        except Failure as e:
            emit("error", code=e.code, name=e.name, message=e.message)
        except Exception as e:  # whatever a library raises is what the test wants to see
            code, name = explain(e)
            emit("error", code=code, name=name, message=str(e))
    sys.stdout.flush()
    # A library's threads may hang in their shutdown after a refused connection.
    os._exit(0)
