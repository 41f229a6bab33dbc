"""From settings to the server's own words: listeners, deadlines, the guard, and every property that may change.

Pure. The same properties make a server and change a running one, so that a reload leaves out nothing that a start
reads.
Thread: any.
Not here: the relay's words (relaying.py), setting them (reloading.py), what is opened for them (build.py).
"""

from __future__ import annotations

from typing import Any

from smtpd_core.app.settings import Listener as ListenerSection
from smtpd_core.app.settings import Settings
from smtpd_core.net import GuardSettings, ListenerSettings, Timeouts


def properties_of(settings: Settings) -> dict[str, Any]:
    """The server's properties that follow from the settings alone. All may change while it runs."""
    limits, accounts = settings.limits, settings.accounts
    return {
        "server_name": settings.hostname,
        "max_thread_count": settings.threads.max,
        "min_thread_count": settings.threads.min,
        "max_recipients": limits.max_recipients,
        "max_data_size": limits.max_message_size,
        "max_errors": limits.max_errors,
        "max_received": limits.max_received,
        "timeout": limits.timeouts.command,
        "session_timeout": limits.timeouts.session,
        "timeouts": timeouts_of(settings),
        "hook_budget": limits.hook_budget,
        "guard": guard_of(settings),
        "bare_line_ends": limits.bare_lf,
        "bare_line_ends_in_chunks": limits.bare_lf_in_chunks,
        "keep_nul": limits.keep_nul,
        "strict_lines": limits.strict_lines,
        "auth_mechanisms": accounts.mechanisms,
        "ntlm_version_1": accounts.ntlm_version_1,
        "without_extensions": limits.without,
        "clear_text_without_tls": accounts.cleartext_without_tls,
        "restrict_senders": accounts.sender_rule,
        "case_insensitive": accounts.case_insensitive,
    }


def listener_of(section: ListenerSection) -> ListenerSettings:
    return ListenerSettings(
        bind=section.bind,
        service=section.service,
        tls=section.tls,
        auth=section.auth,
        proxy_protocol=section.proxy_protocol,
        proxy_from=section.proxy_from,
        xclient_from=section.xclient_from,
        mechanisms=section.mechanisms,
        without=section.without,
    )


def timeouts_of(settings: Settings) -> Timeouts:
    limits, times = settings.limits, settings.limits.timeouts
    return Timeouts(
        greeting=times.greeting,
        handshake=times.handshake,
        command=times.command,
        data=times.data,
        login=times.login,
        session=times.session,
        hook_wait=times.hook_wait,
        minimum_rate=limits.minimum_rate,
        rate_window=limits.rate_window,
    )


def guard_of(settings: Settings) -> GuardSettings:
    guard, limits = settings.guard, settings.limits
    return GuardSettings(
        max_connections=limits.max_connections,
        max_per_source=limits.max_connections_per_source,
        max_per_prefix=guard.max_per_prefix,
        connections_per_period=guard.connections_per_period,
        messages_per_period=guard.messages_per_period,
        period=guard.period,
        allow=guard.allow,
        block=guard.block,
        allow_only=guard.allow_only,
        exempt=(*guard.exempt, *settings.relay.allow_networks),
        login_delay=guard.login_delay,
        lock_out_after=guard.lock_out_after,
        lock_out_period=guard.lock_out_period,
    )
