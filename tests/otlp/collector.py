"""A collector that speaks OTLP over gRPC, of the libraries that gRPC and OpenTelemetry publish.

    collector.py clear|tls FOLDER

Listens on 127.0.0.1, over TLS with `server.crt` and `server.key` of FOLDER, prints its port, and then answers each line of
its input with one line of JSON:

    heard             every export so far: its method, its metadata, whether it was taken, its message
    answer CODE [MS]  from now on exports get the status of this name, with a pause of MS milliseconds if there is one
    reject COUNT      from now on so many of each export are not wanted

Ends with its input.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from google.protobuf import duration_pb2, json_format
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

heard = []
says = {"code": "OK", "delay": None, "reject": 0}


def field(number, content):
    """A field of protobuf with a length, which is below 128."""
    return bytes([number << 3 | 2, len(content)]) + content


def retry_details(code, millis):
    """A google.rpc.Status with a google.rpc.RetryInfo."""
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(millis)
    kind = b"type.googleapis.com/google.rpc.RetryInfo"
    detail = field(1, kind) + field(2, field(1, delay.SerializeToString()))
    return bytes([1 << 3, code.value[0]]) + field(3, detail)


def export(method, answer):
    """Makes the method that keeps an export and answers it."""

    def handle(_, request, context):
        code = grpc.StatusCode[says["code"]]
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        heard.append({
            "method": method,
            "metadata": metadata,
            "seconds": context.time_remaining(),
            "taken": code is grpc.StatusCode.OK,
            "message": json_format.MessageToDict(request),
        })
        if code is not grpc.StatusCode.OK:
            if says["delay"] is not None:
                details = retry_details(code, says["delay"])
                context.set_trailing_metadata([("grpc-status-details-bin", details)])
            context.abort(code, "canary of a collector's own words")
        return answer(says["reject"])

    return handle


def traces(rejected):
    partial = trace_service_pb2.ExportTracePartialSuccess(rejected_spans=rejected)
    return trace_service_pb2.ExportTraceServiceResponse(partial_success=partial)


def metrics(rejected):
    partial = metrics_service_pb2.ExportMetricsPartialSuccess(rejected_data_points=rejected)
    return metrics_service_pb2.ExportMetricsServiceResponse(partial_success=partial)


def logs(rejected):
    partial = logs_service_pb2.ExportLogsPartialSuccess(rejected_log_records=rejected)
    return logs_service_pb2.ExportLogsServiceResponse(partial_success=partial)


def command(line):
    """Does what a line says, and returns the answer."""
    word, *rest = line.split()
    if word == "answer":
        says.update(code=rest[0], delay=int(rest[1]) if len(rest) > 1 else None)
    elif word == "reject":
        says.update(reject=int(rest[0]))
    elif word == "heard":
        return list(heard)
    return True


def main():
    transport, folder = sys.argv[1], Path(sys.argv[2])
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    for name, answer, base, add in [
        ("traces", traces, trace_service_pb2_grpc.TraceServiceServicer,
         trace_service_pb2_grpc.add_TraceServiceServicer_to_server),
        ("metrics", metrics, metrics_service_pb2_grpc.MetricsServiceServicer,
         metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server),
        ("logs", logs, logs_service_pb2_grpc.LogsServiceServicer,
         logs_service_pb2_grpc.add_LogsServiceServicer_to_server),
    ]:
        add(type(name, (base,), {"Export": export(name, answer)})(), server)
    if transport == "tls":
        pair = [((folder / "server.key").read_bytes(), (folder / "server.crt").read_bytes())]
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pair))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    for line in sys.stdin:
        print(json.dumps(command(line)), flush=True)
    server.stop(None)


main()
