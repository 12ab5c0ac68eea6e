"""Unfinished transfers, posted by the pipe. Run: TRANSFER_WHSEC=whsec_... uvicorn fastapi_handler:app --port 8000"""

import os

from fastapi import FastAPI, Request, Response

from truba.webhook import NotGenuine, Unfinished, answer, verify

app = FastAPI()
SECRETS = os.environ["TRANSFER_WHSEC"].split()  # one, or two while it is changed


@app.post("/unfinished")
async def unfinished(request: Request) -> Response:
    try:
        event = verify(request.headers, await request.body(), SECRETS)
    except NotGenuine as error:
        return Response(str(error), 401)
    if isinstance(event, Unfinished) and event.records[-1] != b"debited":
        # Debit here, once for each event.session (a unique key): the pipe, or an eavesdropper, may send it again.
        return Response(answer(append=[b"debited"], store=0), media_type="application/json")
    return Response(status_code=204)  # done: the session is deleted
