//! The keys outside `gateway`: chat channels, sessions, pairing, the agent and
//! the audit (security spec 1.1, 2.1, 3, 4 and 7.1).

use super::{Field, Kind};
use Kind::{Bool, Int, List, Map, Object, OneOf, Secret, Text, Word};

const DM_POLICY: Kind = Word(&["pairing", "locked", "allowlist", "open", "disabled"]);
const GROUP_POLICY: Kind = Word(&["open", "allowlist", "disabled"]);
const SENDERS: Kind = List(&OneOf(&[Text, Int(i64::MIN, i64::MAX)], "a sender's id, as text or number"));

pub(super) const SESSION: Kind = Object(&[
    Field::new(
        "dmScope",
        Word(&["main", "per-peer", "per-channel-peer", "per-account-channel-peer"]),
        "whose messages share a conversation",
    )
    .or(r#""main""#),
    Field::new("mainKey", Text, "the name of the shared conversation").or(r#""main""#),
    Field::new("identityLinks", Map(&List(&Text)), "which ids are one person"),
]);

pub(super) const PAIRING: Kind =
    Object(&[Field::new("ttlMs", Int(1000, 86_400_000), "how long a code lives").or("3600000")]);

pub(super) const AGENT: Kind = Object(&[
    Field::new("url", Text, "an OpenAI-compatible chat endpoint"),
    Field::new("model", Text, "the model it is asked for"),
    Field::new("apiKey", Secret, "its key"),
    Field::new("apiKeyFile", Text, "a file that holds its key"),
    Field::new("timeoutMs", Int(1, 86_400_000), "how long it may take"),
]);

pub(super) const SECURITY: Kind = Object(&[Field::new(
    "audit",
    Object(&[Field::new(
        "suppressions",
        List(&Object(&[
            Field::new("checkId", Text, "the finding"),
            Field::new("titleIncludes", Text, "only where the title holds this"),
            Field::new("detailIncludes", Text, "only where the detail holds this"),
            Field::new("reason", Text, "why"),
        ])),
        "findings that are known and accepted",
    )]),
    "the audit",
)]);

/// Who may write in a channel: the channel's own keys and each account's.
macro_rules! policy_fields {
    ($($own:expr),* $(,)?) => {
        Object(&[
            Field::new("enabled", Bool, "whether it is used"),
            Field::new("dmPolicy", DM_POLICY, "who may write in private; pairing where absent"),
            Field::new("allowFrom", SENDERS, "senders who may"),
            Field::new(
                "dm",
                Object(&[
                    Field::new("enabled", Bool, "whether private messages are read"),
                    Field::new("policy", DM_POLICY, "the same as dmPolicy"),
                    Field::new("allowFrom", SENDERS, "the same as allowFrom"),
                ]),
                "private messages, in the older spelling",
            ),
            Field::new("groupPolicy", GROUP_POLICY, "who may write in groups; allowlist where absent"),
            Field::new("groupAllowFrom", SENDERS, "senders who may in groups"),
            Field::new("dangerouslyAllowNameMatching", Bool, "match names, which anybody can take"),
            Field::new("pairingReply", Word(&["code", "silent"]), "whether a stranger gets a code"),
            $($own),*
        ])
    };
}

const TELEGRAM_ACCOUNT: Kind = policy_fields!(
    Field::new("name", Text, "a label"),
    Field::new("botToken", Secret, "the bot's token"),
    Field::new("tokenFile", Text, "a file that holds it"),
);
const DISCORD_ACCOUNT: Kind = policy_fields!(
    Field::new("name", Text, "a label"),
    Field::new("token", Secret, "the bot's token"),
    Field::new("tokenFile", Text, "a file that holds it"),
);
const WHATSAPP_ACCOUNT: Kind = policy_fields!(
    Field::new("name", Text, "a label"),
    Field::new("phoneNumberId", Text, "the Cloud API's phone number id"),
    Field::new("accessToken", Secret, "the Cloud API's token"),
    Field::new("tokenFile", Text, "a file that holds it"),
    Field::new("appSecret", Secret, "what webhooks are signed with"),
    Field::new("verifyToken", Secret, "what the webhook is registered with"),
);

pub(super) const CHANNELS: Kind = Object(&[
    Field::new(
        "telegram",
        policy_fields!(
            Field::new("botToken", Secret, "the bot's token"),
            Field::new("tokenFile", Text, "a file that holds it"),
            Field::new("apiRoot", Text, "the Bot API, without /bot"),
            Field::new("webhookUrl", Text, "where Telegram sends updates to"),
            Field::new("webhookSecret", Secret, "what they must carry"),
            Field::new("webhookPath", Text, "the path they come to"),
            Field::new("accounts", Map(&TELEGRAM_ACCOUNT), "several bots"),
        ),
        "Telegram",
    ),
    Field::new(
        "discord",
        policy_fields!(
            Field::new("token", Secret, "the bot's token"),
            Field::new("tokenFile", Text, "a file that holds it"),
            Field::new("apiRoot", Text, "the REST API"),
            Field::new("accounts", Map(&DISCORD_ACCOUNT), "several bots"),
        ),
        "Discord",
    ),
    Field::new(
        "whatsapp",
        policy_fields!(
            Field::new("phoneNumberId", Text, "the Cloud API's phone number id"),
            Field::new("accessToken", Secret, "the Cloud API's token"),
            Field::new("tokenFile", Text, "a file that holds it"),
            Field::new("appSecret", Secret, "what webhooks are signed with"),
            Field::new("verifyToken", Secret, "what the webhook is registered with"),
            Field::new("apiRoot", Text, "the Graph API"),
            Field::new("webhookPath", Text, "the path messages come to"),
            Field::new("accounts", Map(&WHATSAPP_ACCOUNT), "several numbers"),
        ),
        "WhatsApp",
    ),
]);
