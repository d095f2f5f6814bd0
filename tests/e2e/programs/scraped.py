"""Streams, then asks for the metrics as Prometheus would: at the address in its argument.
A second argument names a file: there a child that outlives it tells whether the port is free."""

import os
import pathlib
import socket
import sys
import time

import torch

import models


def ask(endpoint, request):
    kind, path = (socket.AF_UNIX, endpoint[5:]) if endpoint.startswith("unix:") else \
        (socket.AF_INET, ("127.0.0.1", int(endpoint.rpartition(":")[2])))
    with socket.socket(kind) as caller:
        caller.settimeout(60)
        try:
            caller.connect(path)
        except OSError as why:
            return str(why)
        caller.sendall(request)
        answer = b""
        while part := caller.recv(65536):
            answer += part
        return answer.decode()


with torch.no_grad():
    model = models.stack(30)
    hashes = []
    for seed in range(4):
        x = models.make_input(seed).to("cuda")
        for block in model:
            x = block(x)
        hashes.append(models.digest(x))
endpoint = sys.argv[1]
path = endpoint[5:] if endpoint.startswith("unix:") else None
models.report(
    hashes=hashes, weight_bytes=models.weight_bytes(model),
    mode=os.stat(path).st_mode & 0o777 if path and os.path.exists(path) else None,
    # One that says nothing, and one that wants something else, are in nobody's way.
    refused=ask(endpoint, b"POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n"),
    answer=ask(endpoint, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"))

if len(sys.argv) > 2 and os.fork() == 0:
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.01)
    try:
        socket.create_server(("127.0.0.1", int(endpoint.rpartition(":")[2]))).close()
        found = "free"
    except OSError as why:
        found = str(why)
    pathlib.Path(sys.argv[2]).write_text(found)
    os._exit(0)
