"""Every kind of event, what it means, and what its ``data`` holds. A kind is never removed: old logs replay."""

from __future__ import annotations

KINDS: dict[str, str] = {
    # source, build
    "pushed": "A commit arrived. data: commit, branch, message, author, authors (of all that the push brought: names "
    "and digests of addresses), spec (the whole orrery.toml).",
    "built": "The commit's environment is locked. data: commit, lock, python, packages, seconds, cached, contained.",
    "tested": "The project's tests passed in an environment. data: commit, passed, seconds, output, contained.",
    "failed": "A step of the project failed, or a version where it answers (stage serving; taken_back: the inference "
    "server let the version before answer). data: stage, commit or run or version, error, output, final, attempt.",
    # training
    "triggered": "A training was asked for. data: run, reason, change, commit, data (dataset -> version), evidence.",
    "not_triggered": "A trigger fired and the policy held it back. data: reason, evidence, until.",
    "not_trained": "A training found nothing to do. data: run, and the numbers that say so.",
    "trained": "A version exists. data: run, commit, change, data, parent, params, environment, steps, metrics, "
    "artifact, tracking_run, cpu_seconds, seconds, trained_until, compiled (how it is served, and the proof), "
    "contained (namespaces, or limits only and why).",
    # gates, review
    "gated": "The gates judged a version. data: passed, gates (name -> verdict with its numbers), evidence.",
    "review_requested": "A person is asked for a decision. data: role, evidence.",
    "approved": "A person said yes. data: role, or gate (a refused gate overridden); evidence (digest of what was "
    "approved: it holds for that only).",
    "rejected": "A person said no. data: role.",
    "changes_requested": "A reviewer asks the author for something; the review waits while the issue is open. "
    "data: role, issue, evidence.",
    "review_reminded": "A review waits longer than the policy allows. data: role, since.",
    "review_overridden": "In an emergency a version goes on without its reviews. data: roles, evidence, issue.",
    "issue_opened": "Something waits for a person. data: issue, title, owner, cause (while an issue of it is "
    "open, there is no second), events (ids of those it is about).",
    "issue_commented": "Somebody said something about it. data: issue, events.",
    "issue_assigned": "Somebody else looks after it. data: issue, owner.",
    "issue_closed": "It waits no more. data: issue.",
    "issue_reopened": "It waits again, until a person closes it. data: issue.",
    # rollout
    "challenged": "A version began to run beside the champion. data: role (shadow, canary, arm or guard), until, "
    "change; of a canary or an arm also share, steps, unit.",
    "shifted": "A version answers another share of the traffic. data: role, share, previous.",
    "compared": "A look at challenger and champion. data: champion, look, n, effect, interval, evidence, decision; "
    "of a canary or an arm also service (requests, failures, latency, broken, agreement, breach).",
    "promoted": "A version became champion of an environment. data: previous, change, by_policy.",
    "rolled_back": "An earlier champion came back. data: previous (who is replaced).",
    "retired": "A version left an environment. data: role.",
    "deleted": "A version's artifact was removed; its record stays. data: artifact.",
    "purged": "The files of a deleted version are gone. data: artifact, bytes.",
    # batch
    "scored": "A version predicted for every row of a dataset's version. data: dataset, dataset_version, out, "
    "out_version, rows, broken, logged, seconds.",
    # watch
    "watched": "A look at production. data: look, since, until, rows, labelled, metrics, monitors, state.",
    "alarmed": "A monitor fired. data: monitor, statistic, promise, blame, look; where it looks at losses excess "
    "(above what was promised, on average) and losses (how many).",
    "quieted": "A monitor's cause is gone. data: monitor.",
    # data
    "data_added": "A dataset has a new version. data: dataset, version, rows, quarantined, digest, note.",
    "quarantined": "Rows were set aside, not lost. data: dataset, rows, reasons, version.",
    "contract_changed": "A dataset's contract changed. data: dataset, contract, digest.",
    # privacy
    "subject_searched": "Somebody looked what is kept of a subject. data: grave, rows, files.",
    "erasure_asked": "A subject is to be erased; from now on no row of it is taken. data: grave, held (dataset -> "
    "first version with a row of it, and the newest), keys (graves of entities that are of this subject alone).",
    "erased": "What was kept of a subject is gone, or what is left is said. data: grave, tables, datasets (rows that "
    "are left), proof (files, bytes, clean, left), versions (model -> those that learned from it). In the timeline of "
    "a model: versions.",
    "expired": "Rows whose time was up were removed. data: dataset (and rows that are left), or log, labels or values "
    "of the model; removed, before, retention.",
    # audit
    "anchored": "The head of the chain was noted outside. data: target, seq, hash, at, stamps (authority -> its time "
    "stamp).",
    "backed_up": "A copy of everything but the keys was made. data: seq, hash (of the newest event in it), files, "
    "bytes, keys (whether they were copied, too, to another place).",
    "restored": "This orrery was brought back from a copy. data: seq, hash, at (of the copy), keys.",
    "key_replaced": "A key of the home was replaced by a new one. data: which (home, privacy), sealed (how many values "
    "or keys were encrypted anew).",
    "read": "Somebody read what is personal, or took the whole chain away. data: what (rows, quarantine, profile, "
    "predictions, encrypted, chain; of MLflow artifacts, traces, evaluation rows; of git commits), of (dataset or "
    "model), columns (names), more (how many alike were only counted).",
    # people
    "business": "Something happened in the world around the model.",
    "registry": "A registry client did something to the model. data: operation and its arguments.",
    "remote": "Where the commits of a project are fetched from was set or removed. data: project, url, branch, "
    "private, there.",
    # notify
    "channel": "A chat or a webhook of a project was added or removed. data: channel, medium, place (of its address "
    "what may be shown), kinds, private, there.",
    # access
    "account": "An account was added, linked to another name, disabled, got a password, was identified with somebody "
    "of a provider of identities, got a second factor or lost it (factor_added, factor_removed, recovery_used, "
    "recovery_renewed), or said what it wants to be told. data: account, change, link, links, owner, services, issuer, "
    "wish, tokens (whether they ended with a password), left (codes for recovery).",
    "granted": "A role was given or taken back, or a project became one of a team. data: account, role, place, given, "
    "group (of the provider of identities, which brought it); or project, team.",
    "key": "A token or a link was made or revoked, or sessions ended. data: account, key (its id), key_kind, scopes, "
    "project, until, revoked.",
    "signed_in": "A person signed in. data: account, key, until.",
    "secret": "A secret of a project was set, replaced, removed or encrypted anew; never its value. data: project, "
    "secret (its name), change.",
    "denied": "An attempt was denied. data: what, project, more (how many alike were only counted before).",
}
