"""The limit: a server that reads the request and answers a constant."""

HEADERS = [("content-type", "application/json")]


async def app(scope, proto):
    await proto()
    proto.response_bytes(200, HEADERS, b'{"predictions": [0.5]}')
