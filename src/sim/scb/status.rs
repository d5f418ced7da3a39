//! SCB's business codes with their HTTP statuses and their words in two languages.
//!
//! One number may mean two things: only endpoint, HTTP status and code together say which.

use http::StatusCode;
use serde_json::{Value, json};

use crate::sim::call::SimCall;
use crate::sim::sim_response::SimResponse;

/// An outcome of a call, with SCB's HTTP status, business code and descriptions.
#[derive(Clone, Copy, Debug)]
pub(super) enum ScbStatus<'a> {
    /// The token has not the right.
    AccessDenied,
    /// The `authorization` field is missing or holds no bearer token.
    AuthorizationMissing,
    /// The call came on the wrong channel.
    ChannelUnsupported,
    /// The authorization code is unknown, used or older than a minute.
    CodeInvalid,
    /// A JSON member that the endpoint does not know, by name.
    FieldUnknown(&'a str),
    /// A failure of theirs, told with HTTP status 200.
    GenericButOk,
    /// The application's key or secret is wrong; with this code.
    KeyInvalid(u32),
    /// The content type is not `application/json`, as it must be.
    MediaType,
    /// A method that the endpoint does not allow.
    Method,
    /// A record or path that does not exist.
    NotFound,
    /// A parameter, given by name, that is an empty string.
    ParameterEmpty(&'a str),
    /// A parameter makes no sense.
    ParameterInvalid(&'a str),
    /// A required parameter is not there.
    ParameterMissing(&'a str),
    /// A header that every call must have is not there.
    StandardHeaderMissing(&'a str),
    Success,
    /// The token is expired, withdrawn or unknown; with this code.
    TokenDead(u32),
    /// More calls per second than allowed.
    TooManyCalls,
}

impl ScbStatus<'_> {
    /// HTTP status, business code, English and Thai words.
    fn row(self) -> (u16, u32, String, String) {
        let row = |http, code, english: &str, thai: &str| (http, code, english.to_owned(), thai.to_owned());
        let named = |http, code, english: &str, thai: &str, name: &str| {
            (http, code, format!("{english} ({name})"), format!("{thai} ({name})"))
        };
        match self {
            ScbStatus::AccessDenied => row(403, 9503, "Invalid access rights", "ไม่มีสิทธิ์เข้าถึง"),
            ScbStatus::AuthorizationMissing => row(401, 9100, "Authorization credentials missing", "ไม่พบข้อมูลยืนยันตัวตน"),
            ScbStatus::ChannelUnsupported => row(501, 4101, "Current channel is not supported", "ไม่รองรับช่องทางนี้"),
            ScbStatus::CodeInvalid => row(401, 9300, "Invalid authorization code", "รหัสอนุญาตไม่ถูกต้อง"),
            ScbStatus::FieldUnknown(name) => named(400, 1105, "Unknown field name", "ไม่รู้จักชื่อฟิลด์", name),
            ScbStatus::GenericButOk => row(200, 9700, "Generic Business Error", "เกิดข้อผิดพลาดทั่วไป"),
            ScbStatus::KeyInvalid(code) => row(401, code, "Invalid apikey", "apikey ไม่ถูกต้อง"),
            ScbStatus::MediaType => row(415, 9900, "Unsupported media type", "ไม่รองรับชนิดข้อมูลนี้"),
            ScbStatus::Method => row(405, 9900, "Method not allowed", "ไม่อนุญาตให้ใช้วิธีนี้"),
            ScbStatus::NotFound => row(404, 1104, "Requested record does not exist", "ไม่พบข้อมูลที่ร้องขอ"),
            ScbStatus::ParameterEmpty(name) => named(400, 1103, "Empty parameter", "พารามิเตอร์ว่าง", name),
            ScbStatus::ParameterInvalid(name) => named(400, 1102, "Invalid parameter", "พารามิเตอร์ไม่ถูกต้อง", name),
            ScbStatus::ParameterMissing(name) => {
                named(400, 1101, "Required parameter missing", "ไม่พบพารามิเตอร์ที่จำเป็น", name)
            }
            ScbStatus::StandardHeaderMissing(name) => {
                named(400, 9100, "Required standard header missing", "ไม่พบส่วนหัวมาตรฐานที่จำเป็น", name)
            }
            ScbStatus::Success => row(200, 1000, "Success", "สำเร็จ"),
            ScbStatus::TokenDead(code) => {
                row(401, code, "Invalid/expired temporary token", "โทเค็นชั่วคราวไม่ถูกต้องหรือหมดอายุ")
            }
            ScbStatus::TooManyCalls => row(429, 9900, "Too many requests", "มีการเรียกใช้มากเกินไป"),
        }
    }

    /// The body: `{"status":{…},"data":…}`. `data` is JSON text.
    pub(super) fn envelope(self, call: &SimCall, data: Option<&str>) -> String {
        let (_, code, english, thai) = self.row();
        let thai_wanted = call
            .header("accept-language")
            .is_some_and(|language| language.get(..2).is_some_and(|language| language.eq_ignore_ascii_case("th")));
        let status: Value = json!({ "code": code, "description": if thai_wanted { thai } else { english } });
        match data {
            Some(data) => format!(r#"{{"status":{status},"data":{data}}}"#),
            None if call.faults.scb.null_data => format!(r#"{{"status":{status},"data":null}}"#),
            None => format!(r#"{{"status":{status}}}"#),
        }
    }

    /// The whole answer, without data.
    pub(super) fn answer(self, call: &SimCall) -> SimResponse {
        let status = StatusCode::from_u16(self.row().0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        SimResponse::json(status, self.envelope(call, None))
    }
}
