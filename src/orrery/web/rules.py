"""The rule of every address: which permission, and where. An address without a rule is not answered.

Roles and what they may do are in :mod:`orrery.access.roles`; here stands only which permission an address asks for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qs

_RULES = """
    GET     /static/*                                    public
    GET     /api/health                                  public
    GET     /-/sign-in                                   public
    POST    /-/sign-in                                   public
    POST    /-/second                                    public
    GET     /-/oidc                                      public
    GET     /-/oidc/back                                 public
    GET     /-/welcome                                   public
    POST    /-/welcome                                   public
    POST    /hooks/{model}/{platform}                    public
    POST    /-/sign-out                                  anybody
    GET     /-/account                                   anybody
    GET     /-/accounts                                  accounts   *
    POST    /-/accounts/{order}                          accounts   *
    POST    /-/account                                   anybody
    POST    /-/account/{order}                           anybody
    GET     /-/privacy                                   privacy    *
    POST    /-/privacy/{order}                           privacy    *
    GET     /openapi                                     anybody

    GET     /api/serving/assignment                      serving
    POST    /api/serving/report                          serving
    POST    /api/clock                                   operate    *

    GET     /api/models                                  anybody
    GET     /api/reviews                                 anybody
    GET     /api/data                                    anybody
    GET     /api/verify                                  audit      *
    GET     /api/status                                  operate    *
    GET     /api/data/{name}/versions                    read       dataset
    POST    /api/data/{name}                             data       dataset
    GET     /api/models/{model}                          read       project
    GET     /api/models/{model}/versions                 read       project
    GET     /api/models/{model}/timeline                 read       project
    GET     /api/models/{model}/at                       read       project
    GET     /api/models/{model}/issues                   read       project
    POST    /api/models/{model}/issues                   note       project
    POST    /api/models/{model}/issues/{issue}/comment   note       project
    POST    /api/models/{model}/issues/{issue}/assign    note       project
    POST    /api/models/{model}/issues/{issue}/close     note       project
    POST    /api/models/{model}/issues/{issue}/reopen    note       project
    POST    /api/models/{model}/rollback                 release    project
    POST    /api/models/{model}/events                   note       project
    POST    /api/models/{model}/train                    train      project
    POST    /api/models/{model}/labels                   data       project
    GET     /api/models/{model}/versions/{number}        read       project
    DELETE  /api/models/{model}/versions/{number}        delete     project
    POST    /api/models/{model}/versions/{number}/approve  review   project
    POST    /api/models/{model}/versions/{number}/reject   review   project
    POST    /api/models/{model}/versions/{number}/ask      review   project
    POST    /api/models/{model}/versions/{number}/override  override  project
    POST    /api/models/{model}/versions/{number}/promote  release  project
    POST    /api/models/{model}/versions/{number}/retire   release  project

    GET     /api/models/{model}/secrets                  read       project
    PUT     /api/models/{model}/secrets/{secret}         secrets    project
    DELETE  /api/models/{model}/secrets/{secret}         secrets    project

    GET     /api/models/{model}/channels                 read       project
    POST    /api/models/{model}/channels                 operate    project
    POST    /api/models/{model}/channels/{channel}/test  operate    project
    DELETE  /api/models/{model}/channels/{channel}       operate    project
    POST    /api/models/{model}/webhooks                 operate    project
    GET     /api/models/{model}/remote                   read       project
    PUT     /api/models/{model}/remote                   operate    project
    POST    /api/models/{model}/remote/fetch             operate    project
    DELETE  /api/models/{model}/remote                   operate    project

    GET     /api/privacy                                 privacy    *
    POST    /api/privacy/find                            privacy    *
    POST    /api/privacy/erase                           privacy    *

    GET     /mlflow                                      read       somewhere
    GET     /mlflow/*                                    read       somewhere
    POST    /mlflow/*                                    read       somewhere
    PUT     /mlflow/*                                    track      somewhere
    PATCH   /mlflow/*                                    read       somewhere
    DELETE  /mlflow/*                                    read       somewhere

    GET     /                                            anybody
    GET     /index                                       anybody
    GET     /reviews                                     anybody
    GET     /issues                                      anybody
    GET     /audit                                       audit      *
    GET     /audit/who                                   audit      *
    GET     /data                                        anybody
    GET     /data/{name}                                 read       dataset
    GET     /{model}/versions/{number}                   read       project
    GET     /{model}/versions/{number}/why               read       project
    GET     /{model}/commits/{sha}                       read       project
    GET     /{model}/served                              read       project
    GET     /{model}/issues                              read       project
    GET     /{model}/issues/{issue}                      read       project
    GET     /{model}/channels                            read       project
    GET     /{model}/privacy                             read       project
    GET     /{model}/orders                              read       project
    GET     /{model}                                     read       project
    POST    /{model}/versions/{number}/approve           review     project
    POST    /{model}/versions/{number}/reject            review     project
    POST    /{model}/versions/{number}/ask               review     project
    POST    /{model}/versions/{number}/override          override   project
    POST    /{model}/versions/{number}/promote           release    project
    POST    /{model}/versions/{number}/retire            release    project
    POST    /{model}/versions/{number}/delete            delete     project
    POST    /{model}/channels/hook                       operate    project
    POST    /{model}/channels/chat                       operate    project
    POST    /{model}/channels/test                       operate    project
    POST    /{model}/channels/remove                     operate    project
    POST    /{model}/channels/remote                     operate    project
    POST    /{model}/channels/leave                      operate    project
    POST    /{model}/orders/rollback                     release    project
    POST    /{model}/orders/train                        train      project
    POST    /{model}/orders/event                        note       project
    POST    /{model}/orders/issue                        note       project
    POST    /{model}/issues/{issue}/comment              note       project
    POST    /{model}/issues/{issue}/assign               note       project
    POST    /{model}/issues/{issue}/close                note       project
    POST    /{model}/issues/{issue}/reopen               note       project
"""
_GIT = re.compile(r"/git/([^/]+?)(?:\.git)?/(info/refs|git-upload-pack|git-receive-pack)")
_TRICKS = re.compile(r"//|/\.{1,2}(?:/|$)|\\|[\x00-\x1f\x7f]|%(?:2e|2f|5c|00)", re.IGNORECASE)
"""What could be read in two ways, by us and by who answers; paths are decoded once before."""


@dataclass(frozen=True)
class Rule:
    """What an address asks for.

    Parameters
    ----------
    permission : one of the permission table; or ``public`` (nobody signs in), ``anybody`` (who is signed in: what is
        shown is what they may see), ``serving`` (the inference servers of this orrery).
    where : ``project``, ``dataset``, ``*`` for everywhere, or ``somewhere``: what is shown and changed there is what
        they may, which MLflow's stores see to (:mod:`orrery.registry.sight`).
    name : of the project or dataset.
    """

    permission: str
    where: str = ""
    name: str = ""


def _compiled(text: str) -> list[tuple[str, re.Pattern[str], str, str]]:
    rows = []
    for line in text.strip().splitlines():
        if not line.strip():
            continue
        method, template, permission, *where = line.split()
        pattern = re.escape(template).replace(r"\*", ".*")
        pattern = re.sub(r"\\{(?:model|name)\\}", "(?P<name>[^/]+)", pattern)
        pattern = re.sub(r"\\{\w+\\}", "[^/]+", pattern)
        rows.append((method, re.compile(pattern), permission, where[0] if where else ""))
    return rows


_TABLE = _compiled(_RULES)


def rule_of(method: str, path: str, query: str = "") -> Rule | None:
    """Return the rule of a request, nothing where there is none.

    Examples
    --------
    >>> rule_of("POST", "/api/models/tides/train")
    Rule(permission='train', where='project', name='tides')
    >>> rule_of("GET", "/git/tides.git/info/refs", "service=git-receive-pack")
    Rule(permission='push', where='project', name='tides')
    >>> rule_of("PUT", "/api/models/tides/train") or rule_of("POST", "/mlflow-x/versions/1/conquer")
    """
    if _TRICKS.search(path):
        return None
    if path == "/git" or path.startswith("/git/"):
        return _rule_of_git(method, path, query)
    method = "GET" if method in ("HEAD", "OPTIONS") else method
    if method == "GET" and not path.startswith(("/api/", "/mlflow/", "/static/")):
        path = path.removesuffix(".json")  # what a page shows, for programs
    for known, pattern, permission, where in _TABLE:
        if known == method and (match := pattern.fullmatch(path)):
            return Rule(permission, where, match.groupdict().get("name", ""))
    return None


def _rule_of_git(method: str, path: str, query: str) -> Rule | None:
    match = _GIT.fullmatch(path)
    if match is None or method != ("GET" if match[2] == "info/refs" else "POST"):
        return None
    # Where the service is named twice, git and we must not read it in two ways.
    asked = [match[2], *parse_qs(query, keep_blank_values=True).get("service", [])]
    return Rule("push" if "git-receive-pack" in asked else "read", "project", match[1])
