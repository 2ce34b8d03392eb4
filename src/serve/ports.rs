//! The addresses on which the server listens.

use crate::config::Config;
use crate::http::{Address, Listener, Tls};

use super::error::ServeError;

/// The bound addresses.
pub struct Ports {
    /// The addresses of `listen`, which receive events and serve reads.
    pub public: Vec<Listener>,
    /// The addresses that serve OpenTelemetry exporters only.
    pub otlp: Vec<Listener>,
    /// The address of metrics and probes; `None` once it is being served.
    pub admin: Option<Listener>,
}

impl Ports {
    /// Binds the addresses of a configuration.
    ///
    /// # Errors
    /// When an address cannot be bound.
    pub async fn bind(config: &Config, tls: Option<&Tls>) -> Result<Ports, ServeError> {
        let bind = async |key, address: &Address, tls| {
            let bound = Listener::bind(address, config.socket_mode, tls).await;
            bound.map_err(|source| ServeError::Bind { key, address: address.clone(), source })
        };
        let mut public = Vec::new();
        for address in &config.listen.0 {
            public.push(bind("listen", address, tls).await?);
        }
        let admin = bind("admin.listen", &config.admin.listen, None).await?;
        let mut otlp = Vec::new();
        for (key, address) in config.ingest.otlp.addresses() {
            otlp.push(bind(key, &address, tls).await?);
        }
        Ok(Ports { public, otlp, admin: Some(admin) })
    }

    /// All addresses that receive events.
    pub fn receiving(&self) -> Vec<Address> {
        self.public.iter().chain(&self.otlp).map(Listener::address).collect()
    }
}
