"""The Open Inference Protocol, version 2, over gRPC; and gRPC's own health check.

What the path says over HTTP is metadata here: ``orrery-environment``, else it is production. Tensors that come as bytes
are answered as bytes, others in the field of their datatype.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from orrery.access.tls import Certificate
from orrery.errors import NotAllowed, NotUnderstood, OrreryError
from orrery.serving import open_inference, tensors, trace
from orrery.serving.caller import caller_of
from orrery.serving.door import Door
from orrery.serving.explaining import wanted
from orrery.serving.log import say
from orrery.serving.passes import Guest
from orrery.serving.refusals import code_of, said
from orrery.serving.requests import CERTIFICATE, Answer, Fields, request
from orrery.serving.route import Route
from orrery.serving.service import Service, waits
from orrery.types import PRODUCTION

NAME = "inference.GRPCInferenceService"
DESCRIPTORS = Path(__file__).with_name("inference.binpb")
"""What ``make proto`` writes."""

_HEALTH, _SERVING, _NOT_SERVING = "grpc.health.v1.Health", b"\x08\x01", b"\x08\x02"  # its field 1 is the status
_GRACE = 30.0
_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    **{"INT64": "int64_contents", "UINT64": "uint64_contents"},
    **{"FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents"},
}

Method = Callable[[Any, Fields, Any], Awaitable[Any]]


def messages(descriptors: bytes) -> dict[str, Any]:
    """Return the message classes of a file of descriptors, by name.

    They are in a pool of their own, so that another library may bring its copy of the protocol into the same process.
    """
    pool = descriptor_pool.DescriptorPool()
    file = descriptor_pb2.FileDescriptorSet.FromString(descriptors).file[0]
    pool.Add(file)
    return {
        each.name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{each.name}"))
        for each in file.message_type
    }


class Rpc:
    """Answers requests over gRPC.

    Parameters
    ----------
    service : answers them.
    door : who else is inside.
    shared : whether other processes listen on the same port.
    clients : whether who comes by TLS shows a certificate.
    """

    def __init__(self, service: Service, door: Door, shared: bool = False, clients: bool = False) -> None:
        self._service, self._door, self._clients = service, door, clients
        self._messages = messages(DESCRIPTORS.read_bytes())
        limits = door.limits
        self._server = grpc.aio.server(
            maximum_concurrent_rpcs=limits.requests,
            options=[
                ("grpc.max_receive_message_length", limits.body),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", limits.header),
                ("grpc.so_reuseport", int(shared)),
            ],
        )
        methods: dict[str, Method] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._infer,
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(self._guarded(self._messages[f"{name}Request"], method))
            for name, method in methods.items()
        }
        health = {"Check": grpc.unary_unary_rpc_method_handler(self._health)}
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(NAME, handlers),
                grpc.method_handlers_generic_handler(_HEALTH, health),
            )
        )

    async def start(self, port: int, by_tls: str = "", certificate: Certificate | None = None) -> None:
        """Listen on a port of loopback, or with a certificate where ``by_tls`` says, or both.

        Raises
        ------
        NotAllowed
            If a port is taken.
        """
        if port:
            self._listen(f"127.0.0.1:{port}", "ORRERY_GRPC_PORT")
        if certificate is not None:
            self._listen(by_tls, "ORRERY_GRPC_TLS_PORT", _credentials(certificate, self._clients))
        await self._server.start()

    def _listen(self, address: str, setting: str, credentials: Any = None) -> None:
        try:
            if credentials is None:
                self._server.add_insecure_port(address)
            else:
                self._server.add_secure_port(address, credentials)
        except RuntimeError:
            port = address.rpartition(":")[2]
            raise NotAllowed(f"Port {port} is taken.", todo=f"Set {setting} to a free one.") from None

    async def stop(self) -> None:
        """Finish what runs, and stop."""
        await self._server.stop(_GRACE)

    def _guarded(self, kind: Any, method: Method) -> Callable[[bytes, Any], Awaitable[bytes]]:
        """Return a handler that reads the request, and tells errors by gRPC's codes."""

        async def handle(data: bytes, context: Any) -> bytes:
            labels = ["", "", "", ""]
            try:
                fields = dict(context.invocation_metadata())
                if self._clients and len(names := context.auth_context().get("x509_common_name", ())) == 1:
                    fields[CERTIFICATE] = names[0].decode(errors="replace")
                if (given := fields.get("traceparent")) and (joined := trace.joined(given)):
                    context.set_trailing_metadata((("traceparent", joined),))
                with self._door.enter() as visit:
                    visit.hold(len(data))
                    try:
                        asked = kind.FromString(data)
                    except DecodeError:
                        raise NotUnderstood("The message cannot be read.") from None
                    reply: bytes = (await method(asked, fields, labels)).SerializeToString()
                    return reply
            except Exception as error:
                code = code_of(error)
                if not isinstance(error, OrreryError):
                    say(traceback.format_exc())
                elif code.http == 500:
                    say(f"{'/'.join(labels)} {error!r}")
                self._service.metrics.requests.add((*labels, code.grpc))
                failure = code.grpc, said(error)
            await context.abort(grpc.StatusCode[failure[0]], failure[1])
            raise AssertionError  # abort never returns

        return handle

    async def _health(self, data: bytes, context: Any) -> bytes:
        return _SERVING if self._service.fleet.ready else _NOT_SERVING

    async def _live(self, asked: Any, fields: Fields, labels: list[str]) -> Any:
        return self._messages["ServerLiveResponse"](live=True)

    async def _ready(self, asked: Any, fields: Fields, labels: list[str]) -> Any:
        return self._messages["ServerReadyResponse"](ready=self._service.fleet.ready)

    async def _metadata(self, asked: Any, fields: Fields, labels: list[str]) -> Any:
        return self._messages["ServerMetadataResponse"](name="orrery", version=self._service.version)

    async def _model_ready(self, asked: Any, fields: Fields, labels: list[str]) -> Any:
        route = self._find(fields, asked.name, asked.version)
        return self._messages["ModelReadyResponse"](ready=route.model.ready.is_set())

    async def _model_metadata(self, asked: Any, fields: Fields, labels: list[str]) -> Any:
        return self._messages["ModelMetadataResponse"](
            **open_inference.describe(self._find(fields, asked.name, asked.version))
        )

    async def _infer(self, asked: Any, fields: Fields, labels: list[str]) -> Any:
        began = time.perf_counter()
        service = self._service
        guest = service.passes.guest(fields)
        route = self._find(fields, asked.model_name, asked.model_version, guest)
        labels[:] = route.labels
        for each in (*asked.inputs, *asked.outputs):
            open_inference.refuse_parameters(each.name, each.parameters)
        found = [
            tensors.Tensor(each.name, each.datatype, each.shape, values)
            for each, values in zip(asked.inputs, _values(asked), strict=True)
        ]
        names = [output.name for output in asked.outputs]
        open_inference.check(names, route.slot)
        understood = request(tensors.columns_of(found, route.columns), asked.id or fields.get("x-request-id"))
        if route.slot.personal:
            service.conceal(route.slot, understood)
        understood.caller = caller_of(fields, guest)
        understood.explain = wanted(_parameter(asked.parameters, "explain"))
        route = route.pick(understood)
        labels[:] = route.labels
        answer = await service.answer(route, understood, service.at(fields), wait=waits(fields))
        service.metrics.requests.add((*route.labels, "OK"))
        if not understood.explain:
            service.metrics.durations.add(route.labels[:2], time.perf_counter() - began)
        return self._written(answer, names, bool(asked.raw_input_contents))

    def _find(self, fields: Fields, name: str, version: str, guest: Guest | None = None) -> Route:
        guest = guest or self._service.passes.guest(fields)
        return self._service.find(fields.get("orrery-environment", PRODUCTION), name, version, guest)

    def _written(self, answer: Answer, names: list[str], raw: bool) -> Any:
        found = open_inference.answered(answer)
        written = [found[name] for name in names or found]
        if answer.explanation is not None:
            written += open_inference.explained(answer.explanation)
        reply = self._messages["ModelInferResponse"](
            model_name=answer.slot.model, model_version=str(answer.slot.version), id=answer.request.id
        )
        for name, value in answer.parameters.items():
            reply.parameters[name].string_param = json.dumps(value)
        for tensor in written:
            output = reply.outputs.add(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])
            for name, value in tensor.get("parameters", {}).items():
                kind = {str: "string_param", int: "int64_param"}.get(type(value), "double_param")
                setattr(output.parameters[name], kind, value)
            if raw:
                reply.raw_output_contents.append(tensors.packed(tensor["datatype"], tensor["data"]))
            else:
                filled = tensors.filled(tensor["datatype"], tensor["data"])
                getattr(output.contents, _CONTENTS[tensor["datatype"]]).extend(filled)
        return reply


def _credentials(certificate: Certificate, clients: bool) -> Any:
    """Return what gRPC shows and asks for; it asks for the files again with each connection."""

    def current() -> Any:
        key, chain, issuers = certificate.files()
        return grpc.ssl_server_certificate_configuration([(key, chain)], root_certificates=issuers)

    return grpc.dynamic_ssl_server_credentials(current(), current, require_client_authentication=clients)


def _parameter(parameters: Any, name: str) -> Any:
    """Return the value of a parameter, whatever its type; nothing if it is not there."""
    if name not in parameters:
        return None
    found = parameters[name]
    return getattr(found, found.WhichOneof("parameter_choice") or "bool_param")


def _values(asked: Any) -> list[list[Any]]:
    """Return the values of each tensor of a request."""
    raw = asked.raw_input_contents
    if not raw:
        return [_typed(each) for each in asked.inputs]
    if len(raw) != len(asked.inputs):
        raise NotUnderstood(f"The request has {len(asked.inputs)} inputs and the bytes of {len(raw)}.")
    return [
        tensors.unpacked(each.name, each.datatype, each.shape, data)
        for each, data in zip(asked.inputs, raw, strict=True)
    ]


def _typed(tensor: Any) -> list[Any]:
    field = _CONTENTS.get(tensor.datatype)
    if field is None:
        if tensor.datatype in tensors.DATATYPES:
            raise NotUnderstood(f"Column {tensor.name} is {tensor.datatype}.", todo="Send it in raw_input_contents.")
        return []  # of a datatype that is refused later, for all protocols alike
    for used, _ in tensor.contents.ListFields():
        if used.name != field:
            raise NotUnderstood(f"Column {tensor.name} is {tensor.datatype} and has {used.name}.", todo=f"Use {field}.")
    values = list(getattr(tensor.contents, field))
    if field == "bytes_contents":
        return [tensors.text(tensor.name, row, value) for row, value in enumerate(values)]
    return [None if value != value else value for value in values]
