//! placeholder
/// placeholder
pub fn parse_host(_bytes: &[u8], _https: bool) -> Option<String> {
    None
}
